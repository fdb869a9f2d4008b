# What the recipes of images share that are built of Debian's packages. A recipe sources it by the link in its own folder, so that the
# recipe's hash has it.

# debian prints the image of a suite with nothing but what every Debian has. It is made once.
debian() {
	local image mirror
	image=omnibus-debian:$1-$(sha256sum <"${BASH_SOURCE[0]}" | cut -c1-12)
	if ! docker image inspect "$image" >/dev/null 2>&1; then
		((EUID == 0)) || { echo 'setup: debootstrap needs root' >&2; return 2; }
		# Packages come from where this machine takes its own, if it is a Debian, else from where debootstrap does.
		mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1 || true)
		echo "setup: will make $image with debootstrap" >&2
		debootstrap --variant=minbase "$1" "debian-$1" $mirror >debootstrap.log || { tail -n 20 debootstrap.log >&2; return 2; }
		rm -rf "debian-$1"/var/{cache/apt,lib/apt/lists,log}/* "debian-$1"/usr/share/{doc,locale,man}/*
		printf '#!/bin/sh\nexit 101\n' >"debian-$1/usr/sbin/policy-rc.d" # no package starts what it brings
		chmod +x "debian-$1/usr/sbin/policy-rc.d"
		tar -C "debian-$1" -c . | docker import - "$image" >/dev/null
		rm -rf "debian-$1"
	fi
	echo "$image"
}

# debian_with prints the container in which packages have been installed, with these arguments for apt-get, after a command: debian_with
# IMAGE COMMAND ARGUMENT... Whoever calls it removes that container.
debian_with() {
	local container
	container=$(docker create --network host "$1" sh -euc '
		export DEBIAN_FRONTEND=noninteractive
		eval "$1"
		shift
		apt-get -qq -o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false update
		apt-get -qq -y --no-install-recommends install "$@"
		rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/* /usr/share/doc/* /usr/share/locale/* /usr/share/man/*
	' sh "${@:2}")
	docker start -a "$container" >packages.log 2>&1 || {
		tail -n 20 packages.log >&2
		docker rm -f "$container" >/dev/null
		return 2
	}
	echo "$container"
}
