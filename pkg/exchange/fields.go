package exchange

// A Field is the documented id of one text field of an exchange, under the
// name that OpenTelemetry's semantic conventions give it where they have one.
// Plug-ins and expressions bind to these ids; they are never renumbered.
type Field uint8

// The text fields of an exchange.
const (
	FieldMethod        Field = 1  // http.request.method, bounded (_OTHER)
	FieldMethodRaw     Field = 2  // http.request.method_original
	FieldHost          Field = 3  // the Host field as sent
	FieldDomain        Field = 4  // server.address
	FieldSection       Field = 5  // httpctl.section
	FieldTarget        Field = 6  // httpctl.request.target, as sent
	FieldUserAgent     Field = 7  // user_agent.original
	FieldStatus        Field = 8  // http.response.status_code, "-" when absent
	FieldProtocol      Field = 9  // network.protocol.name and version, "http/1.1"
	FieldRole          Field = 10 // httpctl.role
	FieldClientAddress Field = 11 // client.address
	FieldServerAddress Field = 12 // server address and port, "192.0.2.1:80"
	FieldScheme        Field = 13 // url.scheme
)

// Text returns the value of a text field, or "" for an unknown id.
// The address fields allocate; the others do not.
func (x *Exchange) Text(f Field) string {
	switch f {
	case FieldMethod:
		return MethodAttribute(x.Method)
	case FieldMethodRaw:
		return x.Method
	case FieldHost:
		return x.Host
	case FieldDomain:
		return x.Domain
	case FieldSection:
		return x.Section
	case FieldTarget:
		return x.Target
	case FieldUserAgent:
		return x.UserAgent
	case FieldStatus:
		return StatusText(x.Status)
	case FieldProtocol:
		return x.Protocol
	case FieldRole:
		return x.Role.String()
	case FieldClientAddress:
		return x.ClientText()
	case FieldServerAddress:
		return x.Server.String()
	case FieldScheme:
		return x.Scheme
	}
	return ""
}
