# For build.sh of a kind, which sources it: a small Debian with packages in it. What the kinds begin with is made once, and kept as an image.

# debian RELEASE PACKAGE... leaves a Debian with these packages in the folder rootfs. RELEASE may also be sid or experimental: the packages are of that
# release, and so is what they need; the rest is of the stable one, which changes less.
debian() {
	local release=$1 base=omnibus-debian:$1 mirror container
	shift
	case $release in sid | experimental) base=omnibus-debian:trixie ;; esac
	((EUID == 0)) || { echo 'setup: debootstrap needs root' >&2; return 2; }
	if ! docker image inspect "$base" >/dev/null 2>&1; then
		# Packages come from where this machine takes its own, if it is a Debian, else from where debootstrap does.
		mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1 || true)
		debootstrap --variant=minbase "${base#*:}" base ${mirror:+"$mirror"} >debootstrap.log || { tail -n 20 debootstrap.log >&2; return 2; }
		rm -rf base/var/cache/apt base/var/lib/apt/lists/* base/var/log/* base/usr/share/{doc,locale,man}
		tar -C base -c . | docker import - "$base" >/dev/null
		rm -rf base
	fi
	# The host's network reaches the packages as this machine does.
	container=$(docker create --network host -e DEBIAN_FRONTEND=noninteractive -e RELEASE="$release" "$base" sh -c '
		set -e
		mirror=$(awk "{ print \$2; exit }" /etc/apt/sources.list)
		case $RELEASE in sid | experimental) echo "deb $mirror sid main" >>/etc/apt/sources.list ;; esac
		case $RELEASE in experimental) echo "deb $mirror experimental main" >>/etc/apt/sources.list ;; esac
		apt-get -qq -o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false update
		apt-get -qq install -y --no-install-recommends -t "$RELEASE" "$@"
		rm -rf /var/cache/apt /var/lib/apt/lists/* /var/log/* /usr/share/doc /usr/share/locale /usr/share/man' sh "$@")
	mkdir -p rootfs
	if docker start -a "$container" >packages.log 2>&1; then
		docker export "$container" | tar -C rootfs -x
		docker rm -f "$container" >/dev/null
	else
		tail -n 20 packages.log >&2
		docker rm -f "$container" >/dev/null
		return 2
	fi
}
