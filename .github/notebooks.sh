#!/usr/bin/env bash
# notebooks.sh SITE REMOTE BRANCH: the branch becomes one commit that holds, in book, the notebooks of a built site with
# what they read there, the chapters' sources and the records. Colab opens them; a history would be of use to nobody.
set -euo pipefail
site=$1 remote=$2 branch=$3

here=$(cd "$(dirname "$0")/.." && pwd)
aside=$(mktemp -d)
trap 'rm -rf "$aside"' EXIT
mkdir "$aside/book"
cp "$site"/notebooks/*.ipynb "$aside/book/"
cp "$here"/book/[0-9][0-9]_*.py "$aside/book/"
cp -R "$here/book/records" "$aside/book/records"

cd "$aside"
git init --quiet
git checkout --quiet -b "$branch"
git add --force .
git -c user.name=github-actions -c user.email=github-actions@users.noreply.github.com \
  commit --quiet --no-verify -m "Executed notebooks of ${GITHUB_SHA:-$(git -C "$here" rev-parse HEAD)}"
git push --quiet --force "$remote" "$branch"
