# The server is one static Go program: an image of nothing else, by go install.
CGO_ENABLED=0 GOBIN=$PWD go install -trimpath "github.com/nats-io/nats-server/v2@v$VERSION"
tar -c nats-server | docker import --change 'ENTRYPOINT ["/nats-server"]' - "$TAG"
