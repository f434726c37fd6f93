# What the scripts share; sourced, not run.
# shellcheck shell=bash

# Installs a Debian package.
install_package() {
    local package=$1
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "$package is missing: install it (Debian: apt-get install $package), then run this again" >&2
        exit 2
    fi
    apt-get update --quiet
    apt-get install --yes --quiet "$package"
}

# Installs a Debian package when the command that it brings is missing.
need() {
    local command=$1 package=$2
    command -v "$command" >/dev/null || install_package "$package"
}

need_rust() {
    if ! command -v cargo >/dev/null; then
        echo "cargo is missing: install Rust with rustup (https://rustup.rs), then run this again" >&2
        exit 2
    fi
    need cc build-essential
    need make make
}
