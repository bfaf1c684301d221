package command

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/config"
)

// defaultLife is the aggregator's default of enroll.certificate_life.
const defaultLife = 24 * time.Hour

func newCARotateCommand(w *world) *cobra.Command {
	var data, wait string
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the fleet's authority by a new one, in three steps",
		Long: `Replace the fleet's authority by a new one, in three steps, one each time that it is run:
a new authority is accepted beside the old one; the new one signs; the old one is accepted
no more. Between two steps every host renews its certificate by itself, and is told
of both, so that none is left out: a step is refused before certificates have lived out
since the one before. The aggregator takes each step over without a restart.`,
		Example: `  sudo httpctl ca rotate
  sudo httpctl ca rotate --wait 6h      # where aggregator.enroll.certificate_life is 6h`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			life, err := config.ParseDuration(wait)
			if err != nil || life < 0 {
				return usagef("--wait %s: want how long certificates live, such as 24h", wait)
			}
			return rotate(w, data, life)
		},
	}
	addData(w, cmd, &data)
	cmd.Flags().StringVar(&wait, "wait", config.FormatDuration(defaultLife), "`TIME` between two steps: aggregator.enroll.certificate_life, or less if all hosts have renewed")
	return cmd
}

func rotate(w *world, data string, wait time.Duration) error {
	dir := authority.Dir(data)
	step, err := authority.Rotate(dir, authority.OwnerOf(data), w.now(), wait)
	var soon *authority.TooSoon
	switch {
	case errors.As(err, &soon):
		return fmt.Errorf("%w: run it again then; --wait says how long certificates live", err)
	case err != nil:
		return authorityMissing(err)
	}
	a, err := authority.Open(dir)
	if err != nil {
		return err
	}
	again := w.now().Add(wait).UTC().Format(time.RFC3339)
	what := map[authority.Step]string{
		authority.Begun: "Step 1 of 3: a new authority is made, and accepted beside the old one, which signs.\n" +
			"Every host is told of it as it renews. Give readers the new ca.pem: theirs does not know it.\n" +
			"Next: httpctl ca rotate, from " + again + " on. A host that does not run until then needs a new token.",
		authority.Switched: "Step 2 of 3: the new authority signs. The old one is accepted; its key is gone.\n" +
			"Make new certificates for readers (httpctl ca issue), and new tokens: those of before are of the old authority.\n" +
			"Next: httpctl ca rotate, from " + again + " on.",
		authority.Ended: "Step 3 of 3: the old authority is accepted no more.",
	}[step]
	_, err = fmt.Fprintf(w.out, "%s\n  in           %s\n  signs        %s\n  accepted     %d\n", what, dir, a.Fingerprint(), len(a.Accepted()))
	return err
}
