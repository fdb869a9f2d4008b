module github.com/omnibus-go/omnibus/middleware/security/tinkkeys

go 1.26.0

replace github.com/omnibus-go/omnibus => ../../..

require (
	github.com/omnibus-go/omnibus v0.0.0-00010101000000-000000000000
	github.com/tink-crypto/tink-go/v2 v2.9.0
	go.uber.org/goleak v1.3.0
	google.golang.org/protobuf v1.36.11
)

require (
	github.com/sony/gobreaker/v2 v2.4.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)
