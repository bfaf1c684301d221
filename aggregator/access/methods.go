package access

// methods gives the least role for each method of each service (gRPC's full name). A method that is
// not here is refused: a new one has to be entered before anybody can call it.
var methods = map[string]Role{
	"/httpctl.v1.IngestService/Deliver": Agent,

	"/httpctl.v1.QueryService/GetStatus":      Viewer,
	"/httpctl.v1.QueryService/GetTop":         Viewer,
	"/httpctl.v1.QueryService/GetSeries":      Viewer,
	"/httpctl.v1.QueryService/GetDashboard":   Viewer,
	"/httpctl.v1.QueryService/Explain":        Viewer,
	"/httpctl.v1.QueryService/ListAlerts":     Viewer,
	"/httpctl.v1.QueryService/ListHosts":      Viewer,
	"/httpctl.v1.QueryService/ListDimensions": Viewer,
	"/httpctl.v1.QueryService/GetBaseline":    Viewer,
	"/httpctl.v1.QueryService/Relearn":        Admin,

	"/httpctl.v1.TailService/Tail": Admin, // what people do, and not only how many

	"/httpctl.v1.AdminService/Backup": Admin,

	"/httpctl.v1.EnrollService/CreateToken":      Admin,
	"/httpctl.v1.EnrollService/ListTokens":       Admin,
	"/httpctl.v1.EnrollService/RevokeToken":      Admin,
	"/httpctl.v1.EnrollService/Revoke":           Admin,
	"/httpctl.v1.EnrollService/ListCertificates": Admin,
	"/httpctl.v1.EnrollService/Enroll":           Anyone, // by its token
	"/httpctl.v1.EnrollService/Renew":            Anyone, // by its certificate, which may have ended
}
