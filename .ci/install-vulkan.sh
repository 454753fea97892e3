#!/usr/bin/env bash
# Installs a software Vulkan driver (Mesa lavapipe) on Debian bookworm; run as root, as often as wanted.
#
# bookworm's own Mesa 22.3.6 silently ends loops after about 65,535 iterations of an invocation, so the
# driver comes from the backports suite. Afterwards:
#   export VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json WGPU_BACKEND=vulkan
set -euo pipefail

release=$(. /etc/os-release && echo "${VERSION_CODENAME}")
suite="${release}-backports"
list=/etc/apt/sources.list.d/siluette-backports.list

# Where the machine already takes its Debian packages from, as "uri keyring"; mirrors differ, suites do not.
main_source() {
    awk -v release="$release" '
        function flush() {
            if (types ~ /(^| )deb( |$)/ && (" " suites " ") ~ (" " release " ")) { print uri, keyring; found = 1 }
            types = uri = suites = keyring = ""
        }
        found { exit }
        tolower($1) == "types:"     { sub(/^[^:]*:[ \t]*/, ""); types = $0; next }
        tolower($1) == "uris:"      { uri = $2; next }
        tolower($1) == "suites:"    { sub(/^[^:]*:[ \t]*/, ""); suites = $0; next }
        tolower($1) == "signed-by:" { keyring = $2; next }
        NF == 0                     { flush() }
        END                         { if (!found) flush() }
    ' "$@"
}

classic_source() {
    awk -v release="$release" '
        $1 == "deb" {
            line = $0; keyring = ""
            if (match(line, /\[[^]]*\]/)) {
                options = substr(line, RSTART + 1, RLENGTH - 2)
                line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
                if (match(options, /signed-by=[^ ]+/)) keyring = substr(options, RSTART + 10, RLENGTH - 10)
            }
            split(line, field, /[ \t]+/)
            if (field[3] == release) { print field[2], keyring; exit }
        }
    ' "$@"
}

add_backports() {
    local source="" file
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -n "$source" ] || [ ! -e "$file" ] || source=$(main_source "$file" | head -n 1)
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -n "$source" ] || [ ! -e "$file" ] || source=$(classic_source "$file" | head -n 1)
    done
    local uri keyring
    read -r uri keyring <<<"${source:-http://deb.debian.org/debian}" || true
    echo "deb ${keyring:+[signed-by=${keyring}] }${uri} ${suite} main" >"$list"
}

driver_version() {
    dpkg-query --show --showformat='${Version}' mesa-vulkan-drivers 2>/dev/null || true
}

case "$(driver_version)" in
"" | 22.*)
    grep -rqs "$suite" /etc/apt/sources.list /etc/apt/sources.list.d || add_backports
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        --target-release "$suite" mesa-vulkan-drivers libvulkan1
    ;;
esac

case "$(driver_version)" in
"" | 22.*)
    echo "mesa-vulkan-drivers is '$(driver_version)': not installed, or the 22.x that cuts long loops" >&2
    exit 1
    ;;
esac
test -e /usr/share/vulkan/icd.d/lvp_icd.json || {
    echo "lvp_icd.json is not where mesa-vulkan-drivers puts it" >&2
    exit 1
}
echo "mesa-vulkan-drivers $(driver_version)"
