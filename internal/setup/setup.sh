#!/usr/bin/env bash
# Gets a machine ready to run brokers in containers, also one that can pull no image.
#
#   setup.sh install nats ...   install and start what is missing, then pull each image, or build it of packages
#   setup.sh ready nats ...     do that where it may (CI=true, or root with OMNIBUS_SETUP=on); else say what there is to do
#   setup.sh clients nats ...   the same for the clients in another language, which the tests of the adapters talk to
#   setup.sh state nats         print how tests get the kind: container, url, or left-out (by OMNIBUS_BROKERS)
#
# install, ready and state take a variant, too: nats/tls is the broker of OMNIBUS_NATS_TLS_URL, or a container of the kind; kafka/4.0, which is
# another version, has an image of its own.
#
# A kind has a folder here with build.sh, which makes the image $TAG of version $VERSION in an empty working folder; debian.sh helps with that. The result
# is tagged omnibus-KIND:HASH, after its recipe, and omnibus-KIND:local, or omnibus-KIND:local-VARIANT, which tests look for.
# clients/KIND has get.sh, which gets a client in another language into build/clients/KIND, its working folder. One that needs no broker, such as python, has
# no other folder, and no image.
# A file "needs" beside either has a line for each command that it needs, with the packages that have it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=$PWD/internal/setup

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 2; }
daemon() { docker info >/dev/null 2>&1; }
have() { docker image inspect "$1" >/dev/null 2>&1; }

# url_variable names what holds the URL: OMNIBUS_NATS_URL for nats and nats/default, OMNIBUS_NATS_TLS_URL for nats/tls.
url_variable() { local name=${1%/default}; name=${name//[\/.]/_}; echo "OMNIBUS_${name^^}_URL"; }
scheme() { case ${1%%/*} in rabbitmq) echo amqp ;; *) echo "${1%%/*}" ;; esac; }
image_variable() { local name=${1//[\/.]/_}; name=OMNIBUS_${name^^}_IMAGE; echo "${!name:-}"; }

state() {
	local variable; variable=$(url_variable "$1")
	if [[ -n ${OMNIBUS_BROKERS:-} && ,$OMNIBUS_BROKERS, != *,${1%%/*},* ]]; then
		echo left-out
	elif [[ -n ${!variable:-} ]]; then
		echo url
	else
		echo container
	fi
}

# known_brokers refuses a name in OMNIBUS_BROKERS that nothing has: it would leave out what it means.
known_brokers() {
	local known name names=${OMNIBUS_BROKERS:-}
	known="memory python $(cd "$here" && printf '%s\n' */build.sh | cut -d/ -f1 | xargs)"
	while [[ -n $names ]]; do
		name=${names%%,*}
		[[ -n $name && $name != *[!a-z]* && " $known " == *" $name "* ]] ||
			die "OMNIBUS_BROKERS has \"$name\", which is none of: $known; several are joined by commas"
		[[ $names == *,* ]] || break
		names=${names#*,}
	done
}

# in_containers prints those of the brokers that tests start themselves.
in_containers() { for broker; do [[ ! -d $here/${broker%%/*} || $(state "$broker") != container ]] || echo "$broker"; done; }

# missing_for prints the packages of the commands in a file that are not here.
missing_for() {
	local command packages
	[[ -f $1 ]] || return 0
	while read -r command packages; do command -v "$command" >/dev/null || echo "$packages"; done <"$1"
}

need() {
	local packages
	mapfile -t packages < <(missing_for "$1")
	# shellcheck disable=SC2086 # a line may have several
	((${#packages[@]} == 0)) || get_packages ${packages[*]}
}

official() { go run ./internal/cmd/brokers image "$@"; }

# images_of prints what has the images that brokers run: a variant where that is another version, or else the kind.
images_of() {
	local of_variants of_kinds i
	mapfile -t of_variants < <(official "$@")
	mapfile -t of_kinds < <(official "${@%%/*}")
	for ((i = 0; i < $#; i++)); do
		if [[ ${of_variants[i]} == "${of_kinds[i]}" ]]; then echo "${@:i+1:1}" | cut -d/ -f1; else echo "${@:i+1:1}"; fi
	done | sort -u
}

built_tag() { echo "omnibus-${1%%/*}:$({ official "$1"; cat "$here/debian.sh" "$here/${1%%/*}"/*; } | sha256sum | cut -c1-12)"; }
local_tag() { local variant=${1#"${1%%/*}"}; echo "omnibus-${1%%/*}:local${variant/\//-}"; }

# present reports whether an image is here: the one asked for by name, the one of this recipe, or the official one.
present() {
	local wanted; wanted=$(image_variable "$1")
	if [[ -n $wanted ]]; then have "$wanted"; return; fi
	local built; built=$(built_tag "$1")
	if have "$built"; then docker tag "$built" "$(local_tag "$1")"; return; fi
	have "$(official "$1")" && prefer_official "$1"
}

# prefer_official forgets an image that an older recipe has built.
prefer_official() { docker rmi "$(local_tag "$1")" >/dev/null 2>&1 || true; }

missing_packages() {
	command -v dockerd >/dev/null || echo docker.io
	command -v iptables >/dev/null || echo iptables
}

get_packages() {
	say "will install with apt-get: $*"
	((EUID == 0)) || die "that needs root: install $* by hand, or run this as root"
	command -v apt-get >/dev/null || die "there is no apt-get here: install $* by hand"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

start_daemon() {
	local packages
	mapfile -t packages < <(missing_packages)
	local dir=${TMPDIR:-/tmp}/omnibus-docker
	say "will start dockerd; images and containers go to $dir/root, its log to $dir/log"
	((EUID == 0)) || die "that needs root; start a container daemon that \`docker info\` reaches, or run this as root"
	if ((${#packages[@]})); then
		get_packages "${packages[@]}"
		if daemon; then return; fi # the package has started it
	fi
	mkdir -p "$dir"
	setsid nohup dockerd --data-root "$dir/root" --exec-root "$dir/exec" -p "$dir/pid" -H unix:///var/run/docker.sock \
		>"$dir/log" 2>&1 </dev/null &
	for _ in {1..60}; do
		if daemon; then return; fi
		sleep 1
	done
	tail -n 20 "$dir/log" >&2
	die "dockerd does not answer after 60 s"
}

get_image() {
	local image recipe=$here/${1%%/*} built work
	image=$(image_variable "$1")
	if [[ -n $image ]]; then docker pull -q "$image"; return; fi
	image=$(official "$1")
	say "will pull $image, or else build it of packages ($recipe/build.sh)"
	if timeout 300 docker pull -q "$image"; then prefer_official "$1"; return; fi
	built=$(built_tag "$1")
	need "$recipe/needs"
	work=$(mktemp -d)
	(cd "$work" && TAG=$built VERSION=${image##*:} bash -euo pipefail "$recipe/build.sh") || { rm -rf "$work"; die "no image of $1"; }
	rm -rf "$work"
	docker tag "$built" "$(local_tag "$1")"
	say "built $built"
}

# has_client reports whether the client of a kind in another language is here, as its recipe has it, if the kind has one.
has_client() {
	[[ -d $here/clients/$1 ]] || return 0
	[[ -z $(missing_for "$here/clients/$1/needs") && $(cat "build/clients/$1/recipe" 2>/dev/null) == "$(client_recipe "$1")" ]]
}

# version_of prints the image of a kind; nothing for one that is no broker.
version_of() { [[ ! -d $here/$1 ]] || official "$1"; }

client_recipe() { { version_of "$1"; cat "$here/clients/$1"/*; } | sha256sum | cut -c1-12; }

get_client() {
	local image
	need "$here/clients/$1/needs"
	say "will get a client in another language into build/clients/$1 ($here/clients/$1/get.sh)"
	image=$(version_of "$1")
	mkdir -p "build/clients/$1"
	(cd "build/clients/$1" && VERSION=${image##*:} bash -euo pipefail "$here/clients/$1/get.sh") || die "no client of $1"
	client_recipe "$1" >"build/clients/$1/recipe"
}

may_install() { [[ ${CI:-} == true || (${OMNIBUS_SETUP:-} == on && $EUID == 0) ]]; }

# without_client prints the kinds of those brokers whose client is wanted and not here.
without_client() {
	local kind
	for kind in $(printf '%s\n' "${@%%/*}" | sort -u); do [[ $(state "$kind") == left-out ]] || has_client "$kind" || echo "$kind"; done
}

clients() {
	local kinds kind
	mapfile -t kinds < <(without_client "$@")
	if ! ((${#kinds[@]})); then return; fi
	may_install || die "the tests of ${kinds[*]} talk to a client in another language, which is not here: \`make setup\` gets it"
	for kind in "${kinds[@]}"; do get_client "$kind"; done
}

install() {
	local brokers kind
	for kind in $(without_client "$@"); do get_client "$kind"; done
	mapfile -t brokers < <(in_containers "$@")
	if ! ((${#brokers[@]})); then say "no broker is to be run in a container"; return; fi
	# shellcheck disable=SC2046 # names of images have no blanks
	get_images $(images_of "${brokers[@]}")
}

get_images() {
	local image
	daemon || start_daemon
	for image; do
		if present "$image"; then say "$image: the image is here"; else get_image "$image"; fi
	done
}

ready() {
	local brokers broker images image kind missing=()
	mapfile -t brokers < <(in_containers "$@")
	if ! ((${#brokers[@]})); then return; fi
	mapfile -t images < <(images_of "${brokers[@]}")
	for image in "${images[@]}"; do
		if ! daemon || ! present "$image"; then missing+=("$image"); fi
	done
	if ! ((${#missing[@]})); then return; fi
	if may_install; then
		for kind in $(without_client "${missing[@]}"); do get_client "$kind"; done
		get_images "${missing[@]}"
		return
	fi
	cat >&2 <<-END
		There is no broker to test against: ${missing[*]}. Ways on:
		  make setup UP='${missing[*]}'    installs and starts what is missing, and says what before it does
		  OMNIBUS_SETUP=on make test    the same by itself, as root
	END
	for broker in "${brokers[@]}"; do
		[[ " ${missing[*]} " == *" ${broker%%/*} "* || " ${missing[*]} " == *" $broker "* ]] || continue
		echo "  $(url_variable "$broker")=$(scheme "$broker")://... make ...    uses a broker that runs already" >&2
	done
	echo "  OMNIBUS_BROKERS=memory make test    leaves them out: they count as skipped" >&2
	exit 2
}

command=${1:-}
shift || true
known_brokers
case $command in
install | ready | clients) "$command" "$@" ;;
state) state "$1" ;;
*) die "unknown command \"$command\": install, ready, clients or state" ;;
esac
