# RabbitMQ of Debian's packages, with its commands on the PATH as in the official image: what starts one starts the other.
. "$(dirname "${BASH_SOURCE[0]}")/../debian.sh"
wanted=${VERSION%-management} # a plugin that every package has
case $wanted in
3.10) debian bookworm rabbitmq-server ;;
4.0) debian trixie rabbitmq-server ;;
4.3) debian sid rabbitmq-server ;;
*) echo "setup: there is no recipe for RabbitMQ $wanted" >&2; exit 2 ;;
esac
found=$(chroot rootfs dpkg-query -W -f '${Version}' rabbitmq-server)
echo "setup: Debian has RabbitMQ $found"
[[ $found == "$wanted".* ]] || { echo "setup: that is not $wanted any more" >&2; exit 2; }
chroot rootfs install -d -o rabbitmq -g rabbitmq /var/log/rabbitmq # which went with the logs of the installation
tar -C rootfs -c . | docker import --change 'ENV PATH=/usr/lib/rabbitmq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
	--change 'ENV HOME=/var/lib/rabbitmq' --change 'WORKDIR /var/lib/rabbitmq' --change 'VOLUME /var/lib/rabbitmq' --change 'USER rabbitmq' \
	--change 'CMD ["rabbitmq-server"]' - "$TAG" >/dev/null
