# RabbitMQ from Debian's packages, with its commands on the PATH as in the official image: what starts one starts the other.
recipe=$(dirname "${BASH_SOURCE[0]}")
source "$recipe/debian.sh"

wanted=${VERSION%-management} # every image has that plugin
before=:
arguments=(rabbitmq-server)
case $wanted in
3.10) base=bookworm ;;
4.0) base=trixie ;;
4.3)
	base=trixie # with the packages of tomorrow's Debian
	before='sed "s/ trixie / sid /" /etc/apt/sources.list >/etc/apt/sources.list.d/sid.list'
	arguments+=(-t sid)
	;;
*) echo "setup: no Debian has RabbitMQ $wanted" >&2; exit 2 ;;
esac

image=$(debian $base)
container=$(debian_with "$image" "$before" "${arguments[@]}")
trap 'docker rm -f "$container" >/dev/null' EXIT
docker commit --change 'USER rabbitmq' --change 'ENV HOME=/var/lib/rabbitmq' --change 'WORKDIR /var/lib/rabbitmq' --change 'VOLUME /var/lib/rabbitmq' \
	--change 'ENV PATH=/usr/lib/rabbitmq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' --change 'CMD ["rabbitmq-server"]' \
	"$container" "$TAG" >/dev/null
found=$(docker run --rm --network none "$TAG" dpkg-query -W -f '${Version}' rabbitmq-server)
echo "setup: Debian has RabbitMQ $found"
[[ $found == "$wanted".* ]] || { docker rmi "$TAG" >/dev/null; echo "setup: it is not $wanted any more" >&2; exit 2; }
