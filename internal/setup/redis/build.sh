# Redis of Debian's packages; Valkey where the version is one of its own.
. "$(dirname "${BASH_SOURCE[0]}")/../debian.sh"
case $VERSION in
7.*) debian bookworm redis-server redis-tools ;;
8.0*) debian trixie redis-server redis-tools ;;
8.*) debian experimental redis-server redis-tools ;;
9.*) debian sid valkey-server valkey-tools ;;
*) echo "setup: there is no recipe for Redis $VERSION" >&2; exit 2 ;;
esac
mkdir -p rootfs/data
tar -C rootfs -c . | docker import --change 'CMD ["redis-server"]' --change 'WORKDIR /data' --change 'VOLUME /data' - "$TAG" >/dev/null
