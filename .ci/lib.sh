# Sourced by ./try, ./test and .ci/run: Debian packages and virtual environments.
# shellcheck shell=bash disable=SC2034
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${GOCKER_VENV:-$tree/.venv}
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
	local log
	log=$(mktemp)
	{ apt-get -q update && apt-get -qy install --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 ||
		die "apt-get failed: $(cat "$log")"
	rm -f "$log"
}

# The interpreter to use: $PYTHON, else Debian's, which is not a slow wrapper of some version manager.
find_python() {
	python=${PYTHON:-/usr/bin/python3}
	command -v "$python" >/dev/null || python=python3
	"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || die "needs Python 3.11 or newer"
	"$python" -c 'import ensurepip, venv' 2>/dev/null || need python3-venv
}

# make_venv: $venv, empty but for what builds gocker; kept when it works.
make_venv() {
	"$venv/bin/python" -c 'import setuptools, pip' 2>/dev/null && return
	rm -rf "$venv"
	"$python" -m venv "$venv"
	"$venv/bin/python" -m pip install -q 'setuptools>=70'
}

# build_wheel DIR: from a copy, since a build directory keeps files that the tree no longer has.
build_wheel() {
	local copy
	copy=$(mktemp -d)
	(cd "$tree" && cp -R --parents core plugins setup.py setup.cfg pyproject.toml README.md LICENSE "$copy")
	find "$copy" -name __pycache__ -prune -exec rm -rf {} +
	"$venv/bin/python" -m pip wheel -q --no-deps --no-build-isolation -w "$1" "$copy"
	rm -rf "$copy"
}

# install_gocker EXTRA|'': $GOCKER_WHEEL or else this tree, into $venv; at once when it is there.
install_gocker() {
	local extra=${1:+[$1]} stamp dist
	exec 9>"$venv.lock"
	flock 9
	stamp=$(cd "$tree" && { "$python" -V && echo "$python ${GOCKER_WHEEL:-}" &&
		find core plugins setup.* pyproject.toml README.md LICENSE -type f ! -name '*.pyc' -print0 |
		sort -z | xargs -0 sha256sum; } | sha256sum)
	if [ "$(cat "$venv/installed$extra" 2>/dev/null)" != "$stamp" ]; then
		say "installing gocker$extra into ${venv#"$tree"/}"
		make_venv
		dist=$(mktemp -d)
		if [ "${GOCKER_WHEEL:-}" ]; then cp "$GOCKER_WHEEL" "$dist"; else build_wheel "$dist"; fi
		"$venv/bin/python" -m pip uninstall -qy gocker 2>/dev/null # of the same version: pip would keep it
		"$venv/bin/python" -m pip install -q "$(echo "$dist"/*.whl)$extra"
		rm -rf "$dist"
		echo "$stamp" | tee "$venv/installed" "$venv/installed$extra" >/dev/null
		[ "$1" != dev ] || cp "$venv/installed" "$venv/installed[test]" # dev includes test
	fi
	exec 9>&-
}

# find_newest: sets $newest to the newest Python of this machine beyond $python, or to nothing.
find_newest() {
	local candidate version best
	best=$("$python" -c 'import sys; print(sys.version_info[1])')
	newest=
	for candidate in /usr/bin/python3.?? /usr/local/bin/python3.?? "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3; do
		version=$("$candidate" -c 'import ensurepip, sys; print(sys.version_info[1])' 2>/dev/null) || continue
		if [ "$version" -gt "$best" ]; then best=$version newest=$candidate; fi
	done
}
