# Sourced by ./test: measures coverage, also of gocker's own processes and of the containers' first ones.
# shellcheck shell=bash disable=SC2034,SC2154
hook=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/gocker_cover.pth
trap 'rm -rf "$away" "$hook"' EXIT
"$venv/bin/python" "$tree/tests/cover/hook.py" "$hook"
mkdir "$away/data"
export COVERAGE_FILE=$away/data/.coverage COVERAGE_RCFILE=$tree/pyproject.toml
pytest=(env COVERAGE_RUN=1 "$venv/bin/coverage" run -m pytest)

cover_report() {
	rm -f "$hook"
	"$venv/bin/python" "$tree/tests/cover/collect.py" "$away/data" &&
		(cd "$tree" && "$venv/bin/coverage" combine -q "$away/data" && "$venv/bin/coverage" report)
}
