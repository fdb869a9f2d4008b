module github.com/omnibus-go/omnibus

go 1.26
