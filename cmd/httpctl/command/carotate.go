package command

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/config"
)

func newCARotateCommand(w *world) *cobra.Command {
	var data, wait string
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the fleet's authority by a new one, in three steps",
		Long: `Replace the fleet's authority by a new one, in three steps, one each time that it is run:
a new authority is accepted beside the old one; the new one signs; the old one is accepted
no more. Between two steps every host renews its certificate by itself, and is told
of both, so that none is left out: a step is refused before certificates have lived out
since the one before. How long they live the aggregator keeps beside its authority. It
takes each step over without a restart.`,
		Example: `  sudo httpctl ca rotate
  sudo httpctl ca rotate --wait 0s      # at once: all hosts have renewed, or are to be let in anew`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if wait == "" {
				return rotate(w, data, nil)
			}
			length, err := config.ParseDuration(wait)
			if err != nil || length < 0 {
				return usagef("--wait %s: want how long certificates live, such as 24h", wait)
			}
			return rotate(w, data, &authority.Life{Length: length})
		},
	}
	addData(w, cmd, &data)
	cmd.Flags().StringVar(&wait, "wait", "", "`TIME` between two steps, less if all hosts have renewed (default: how long the aggregator's certificates live)")
	return cmd
}

func rotate(w *world, data string, life *authority.Life) error {
	dir := authority.Dir(data)
	step, err := authority.Rotate(dir, authority.OwnerOf(data), w.now(), life)
	var soon *authority.TooSoon
	switch {
	case errors.As(err, &soon):
		return fmt.Errorf("%w: run it again then; --wait says how long certificates live", err)
	case err != nil && life == nil && authority.Exists(dir) && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; start the aggregator, which keeps that there, or say it with --wait", err)
	case err != nil:
		return authorityMissing(err)
	}
	a, err := authority.Open(dir)
	if err != nil {
		return err
	}
	if life == nil {
		if l, err := authority.ReadLife(dir); err == nil {
			life = &l
		}
	}
	again := "when all certificates of before have lived out"
	if life != nil {
		again = "from " + life.Out(w.now()).UTC().Format(time.RFC3339) + " on"
	}
	what := map[authority.Step]string{
		authority.Begun: "Step 1 of 3: a new authority is made, and accepted beside the old one, which signs.\n" +
			"Every host is told of it as it renews. Give readers the new ca.pem: theirs does not know it.\n" +
			"Next: httpctl ca rotate, " + again + ". A host that does not run until then needs a new token.",
		authority.Switched: "Step 2 of 3: the new authority signs. The old one is accepted; its key is gone.\n" +
			"Make new certificates for readers (httpctl ca issue), and new tokens: those of before are of the old authority.\n" +
			"Next: httpctl ca rotate, " + again + ".",
		authority.Ended: "Step 3 of 3: the old authority is accepted no more.",
	}[step]
	_, err = fmt.Fprintf(w.out, "%s\n  in           %s\n  signs        %s\n  accepted     %d\n", what, dir, a.Fingerprint(), len(a.Accepted()))
	return err
}
