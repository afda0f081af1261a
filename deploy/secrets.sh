#!/bin/sh
# Makes every secret of deploy/compose.yaml in deploy/secrets (or the folder that is named), each a file of its own, and Redis's
# users with the rights of docs/security.md. Run it once: it never overwrites. To change a password, remove its file and
# users.acl, run it again, and restart what reads it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/secrets}
redis=${2:-redis:6379}

# The folder keeps other users of this machine out. Its files can be read by anyone, because Compose mounts them as they are and
# the containers' users have other numbers.
umask 022
mkdir -p "$out"
chmod 700 "$out"

put() { # file: writes what comes on standard input, unless there is one
    if [ -e "$out/$1" ]; then
        cat > /dev/null
    else
        cat > "$out/.$1" && mv "$out/.$1" "$out/$1"
    fi
}

password() { # user: of Redis; made at the first call
    [ -e "$out/$1_redis_password" ] || openssl rand -hex 32 | put "$1_redis_password"
    cat "$out/$1_redis_password"
}

digest() { # user: as Redis keeps it
    password "$1" | tr -d '\n' | openssl dgst -sha256 -r | cut -d ' ' -f 1
}

rights=$(sed -n 's/^ACL SETUSER /user /p' "$here/../docs/security.md")
for user in worker client deliver author archive scaler; do
    name=$(echo "$user" | tr '[:lower:]' '[:upper:]')
    rights=$(echo "$rights" | sed "s/>$name-PASSWORD/#$(digest $user)/")
    echo "redis://sluice-$user:$(password $user)@$redis/0" | put "${user}_redis_url"
done
case $rights in *">"*) echo "secrets.sh: docs/security.md has a user that this script does not know" >&2; exit 1 ;; esac
{
    echo "$rights"
    # The operator's: backups, rq, dashboards.
    echo "user sluice-admin on #$(digest admin) ~* &* +@all"
    # The container's health check.
    echo "user sluice-health on nopass resetkeys resetchannels -@all +ping"
} | put users.acl

echo "whsec_$(openssl rand -base64 32)" | put webhook_secret
openssl rand -hex 16 | put grafana_password
echo "secrets in $out"
