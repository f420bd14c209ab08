# Sourced by ./try, ./test and .ci/run: Debian packages and virtual environments.
# shellcheck shell=bash
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$tree/.venv
export PIP_DISABLE_PIP_VERSION_CHECK=1 DEBIAN_FRONTEND=noninteractive

say() { printf '\n== %s\n' "$*"; }
die() {
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit 1
}

# need PACKAGE...: installs the Debian packages that are missing; with none missing takes 20 ms.
need() {
	local missing
	mapfile -t missing < <(comm -23 <(printf '%s\n' "$@" | sort) <(
		dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' | sort))
	[ ${#missing[@]} -gt 0 ] || return 0
	command -v apt-get >/dev/null || die "not a Debian: install what its packages ${missing[*]} hold"
	[ "$(id -u)" = 0 ] || die "run this as root, or install Debian's packages ${missing[*]}"
	say "installing Debian's ${missing[*]}"
	apt-get -q update
	apt-get -qy -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}"
}

# The interpreter to use: $PYTHON, else Debian's, which is not a slow wrapper of some version manager.
find_python() {
	python=${PYTHON:-/usr/bin/python3}
	command -v "$python" >/dev/null || python=python3
	"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || die "needs Python 3.11 or newer"
	"$python" -c 'import ensurepip, venv' 2>/dev/null || need python3-venv
}

# copy_tree DIR: what a build reads, and nothing that an earlier build left behind.
copy_tree() {
	mkdir -p "$1"
	(cd "$tree" && cp -R --parents core plugins setup.py setup.cfg pyproject.toml README.md LICENSE "$1")
	find "$1" -name __pycache__ -prune -exec rm -rf {} +
}

# install_gocker EXTRA|'': $GOCKER_WHEEL or else this tree, into $venv; at once when it is there.
install_gocker() {
	local extra=${1:+[$1]} stamp build
	stamp=$(cd "$tree" && { "$python" -V && echo "$python ${GOCKER_WHEEL:-}" &&
		find core plugins setup.* pyproject.toml README.md LICENSE -type f ! -name '*.pyc' -print0 |
		sort -z | xargs -0 sha256sum; } | sha256sum)
	[ "$(cat "$venv/installed$extra" 2>/dev/null)" != "$stamp" ] || return 0
	say "installing gocker$extra into ${venv#"$tree"/}"
	"$venv/bin/python" -c 'import pip, setuptools' 2>/dev/null || {
		rm -rf "$venv"
		"$python" -m venv "$venv"
		"$venv/bin/python" -m pip install -q 'setuptools>=70'
	}
	if [ "${GOCKER_WHEEL:-}" ]; then
		"$venv/bin/python" -m pip install -q "$GOCKER_WHEEL$extra"
	else
		build=$(mktemp -d)
		copy_tree "$build"
		"$venv/bin/python" -m pip install -q --no-build-isolation "$build$extra"
		rm -rf "$build"
	fi
	echo "$stamp" | tee "$venv/installed$extra" >"$venv/installed"
}
