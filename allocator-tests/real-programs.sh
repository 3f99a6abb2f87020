#!/usr/bin/env bash
# Runs programs of the system on libbursar.so, or on another library that stands in for malloc:
#
#   allocator-tests/real-programs.sh [--library FILE | --library none] [--once] [NAME...]
#   allocator-tests/real-programs.sh --list
#
# Without a library libbursar.so is built. What the machine does not have is installed from Debian
# where that is allowed, else skipped. Ends with a table, and with 1 if a program failed.
#
# A program is ok if it succeeds, prints what it prints without the library where that can be
# compared, and, under libbursar.so, its processes told of themselves at exit: they really had it.
# With --once each program runs under the library alone, with nothing compared, for those who measure.
set -uo pipefail
cd "$(dirname "$0")/.."

all=(python sqlite gcc git perl node ruby redis postgres)
once= library=
while [ $# -gt 0 ]; do
    case $1 in
    --library) library=$2; shift 2 ;;
    --once) once=yes; shift ;;
    --list) printf '%s\n' "${all[@]}"; exit ;;
    -*) sed -n '2,12s/^# \?//p' "$0"; exit 2 ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || set -- "${all[@]}"
for name; do
    [[ " ${all[*]} " = *" $name "* ]] || { echo "no program $name; there are ${all[*]}"; exit 2; }
done

work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
if [ -z "$library" ]; then
    cargo build --release -q -p bursar-preload || exit 1
    library=${CARGO_TARGET_DIR:-target}/release/libbursar.so
fi
if [ "$library" != none ]; then
    # Where other users can read it.
    cp -L "$library" "$work/" && library=$work/${library##*/} && chmod 755 "$library" || exit 1
    LD_PRELOAD=$library grep -qF "$library" /proc/self/maps ||
        { echo "$library is not loaded"; exit 1; }
fi

# Where processes tell of themselves; only libbursar.so knows the setting.
told=$work/told
conf=
[ -n "$once" ] || [[ $library != */libbursar.so ]] || conf=stats_at_exit=json:$told/%p

preload() {
    [ "$library" != none ] || { "$@"; return; }
    env LD_PRELOAD="$library" BURSAR_CONF="$conf" "$@"
}

# had NAME...: whether processes of these programs told of themselves, or could not.
had() {
    local name
    [ -n "$conf" ] || return 0
    for name; do
        grep -rqE "\"program\":\"[^\"]*/$name\"" "$told" ||
            { echo "no $name told of itself; these did:"
              grep -rohE '"program":"[^"]*"' "$told" | sort | uniq -c; return 1; }
    done
}

# have COMMAND PACKAGE...: whether the command is there, perhaps now.
have() {
    local command=$1
    shift
    type -P "$command" >/dev/null && return
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    apt-get install -y -q "$@" >/dev/null 2>&1 || { apt-get update -q && apt-get install -y -q "$@"; } >/dev/null 2>&1
    type -P "$command" >/dev/null
}

# same COMMAND...: whether it succeeds, and prints what it prints without the library.
same() {
    if [ -n "$once" ]; then
        preload "$@"
        return
    fi
    "$@" >"$work/plain.out" 2>&1
    local plain=$?
    preload "$@" >"$work/preloaded.out" 2>&1
    local preloaded=$?
    [ $plain = 0 ] && [ $preloaded = 0 ] && cmp "$work/plain.out" "$work/preloaded.out" && return
    echo "without the library $plain, with it $preloaded:"
    diff "$work/plain.out" "$work/preloaded.out" | head -20
    return 1
}

python() {
    local python=/usr/bin/python3 tests report
    have $python python3 || return 2
    if ! $python -c 'import test.test_json' 2>/dev/null; then
        local version
        version=$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        have no-such-command "libpython$version-testsuite"
        $python -c 'import test.test_json' 2>/dev/null || return 2
    fi
    tests=(test_json test_gc)
    [ -n "$once" ] || tests+=(test_threading test_subprocess test_multiprocessing_fork
        test_multiprocessing_spawn)
    report=$work/python.report
    # From elsewhere: the tests leave files behind.
    (cd "$work" && preload $python -m test "${tests[@]}") | tee "$report" || return 1
    # None was left out.
    grep -qE "^All ${#tests[@]} tests OK" "$report" && had "$(basename "$(readlink -f $python)")"
}

sqlite() {
    have sqlite3 sqlite3 || return 2
    same sqlite3 :memory: "
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 300000)
        select count(*), sum(length(printf('%d', i * 7919))), max(substr(hex(i), 3)) from n;
        create table t as with recursive n(i) as
            (select 1 union all select i + 1 from n where i < 200000)
            select i, hex(i * 7919) as h from n;
        create index ti on t(h);
        select count(*) from t a join t b on a.h = b.h where a.i % 3 = 0;
        delete from t where i % 2; vacuum; pragma integrity_check;" && had sqlite3
}

gcc() {
    have g++ g++ || return 2
    cat >"$work/words.cc" <<'SOURCE'
#include <algorithm>
#include <iostream>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <vector>
int main() {
    std::vector<std::thread> threads;
    std::vector<size_t> sums(8);
    for (size_t t = 0; t < sums.size(); t++)
        threads.emplace_back([&, t] {
            std::map<std::string, std::vector<size_t>> words;
            for (size_t i = 0; i < 100000; i++)
                words[std::string(1 + i * 31 % 60, char('a' + i % 26))].push_back(i);
            for (auto& [word, places] : words) sums[t] += word.size() * places.size();
        });
    for (auto& thread : threads) thread.join();
    for (auto sum : sums) std::cout << sum << '\n';
    struct alignas(256) Wide { char bytes[300]; };
    auto* wide = new Wide[3];
    std::cout << reinterpret_cast<size_t>(wide) % 256 << '\n';
    delete[] wide;
    int asked = 0;
    static int* count = &asked;
    std::set_new_handler([] { if (++*count == 3) std::set_new_handler(nullptr); });
    volatile size_t much = size_t(1) << 60;
    try { delete[] new char[much]; } catch (std::bad_alloc& error) { std::cout << error.what() << asked << '\n'; }
    std::cout << (new (std::nothrow) char[much] == nullptr) << '\n';
}
SOURCE
    local build=(g++ -O2 -std=c++17 -pthread -o)
    preload "${build[@]}" "$work/words" "$work/words.cc" || return 1
    [ -n "$once" ] || { "${build[@]}" "$work/plain" "$work/words.cc" && cmp "$work/plain" "$work/words"; } || return 1
    same "$work/words" && had cc1plus words
}

git() {
    have git git || return 2
    preload env git clone -q . "$work/clone" && preload env git -C "$work/clone" fsck --full &&
        preload env git -C "$work/clone" gc -q --aggressive &&
        same env git -C "$work/clone" log --stat --oneline || return 1
    rm -rf "$work/clone"
    had git
}

perl() {
    have perl perl || return 2
    same env perl -e '
        my %h; $h{$_ x ($_ % 50)} .= $_ for 1 .. 200000; my $s = 0; $s += length for values %h;
        for (1 .. 20) { my $p = fork; if (!$p) { my @a = map { "x" x $_ } 1 .. 3000; exit 0 } waitpid $p, 0; $s += $? }
        print "$s\n"' && had 'perl[0-9.]*'
}

node() {
    have node nodejs || return 2
    same env node -e '
        const crypto = require("crypto"), zlib = require("zlib");
        let sum = 0;
        for (let i = 0; i < 300; i++) {
            const text = Buffer.alloc(i * 997, String(i));
            sum += zlib.gunzipSync(zlib.gzipSync(text)).length;
            sum += crypto.createHash("sha256").update(text).digest()[0];
        }
        console.log(sum)' && had node
}

ruby() {
    have ruby ruby || return 2
    same env ruby -e '
        threads = 8.times.map { |t| Thread.new { (1..20000).map { |i| (i * t).to_s * (i % 9) }.sum(&:size) } }
        puts threads.sum(&:value), GC.start.inspect, (1..2000).map { |i| [i] * i }.flatten.size' && had 'ruby[0-9.]*'
}

redis() {
    have redis-server redis-server redis-tools || return 2
    local socket=$work/redis.sock server answer
    preload redis-server --port 0 --unixsocket "$socket" --save '' --dir "$work" >"$work/redis.log" &
    server=$!
    for _ in $(seq 100); do [ -S "$socket" ] && break; sleep 0.05; done
    preload redis-benchmark -s "$socket" -q -n 100000 -P 16 -d 200 -r 100000 -t set,get,lpush,hset,zadd &&
        answer=$(redis-cli -s "$socket" dbsize) && [ "${answer:-0}" -gt 10000 ] &&
        redis-cli -s "$socket" bgsave && sleep 1 && redis-cli -s "$socket" flushall &&
        redis-cli -s "$socket" ping
    local result=$?
    redis-cli -s "$socket" shutdown nosave
    wait $server && [ $result = 0 ] &&
        had redis-benchmark "$(basename "$(readlink -f "$(type -P redis-server)")")"
}

postgres() {
    local bin
    bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
    if [ -z "$bin" ]; then
        have no-such-command postgresql
        bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
    fi
    [ -n "$bin" ] && [ "$(id -u)" = 0 ] || return 2
    local home=$work/postgres
    rm -rf "$home"
    mkdir "$home" && chown postgres "$home"
    # The server is a child, not a daemon: what it takes is told to whoever waits for this script.
    su postgres -c "
        cd $home
        if [ $library != none ]; then
            export LD_PRELOAD=$library BURSAR_CONF=$conf
        fi
        $bin/initdb -D data || exit 1
        $bin/postgres -D data -c listen_addresses= -k $home >log 2>&1 &
        until $bin/pg_isready -q -h $home; do kill -0 \$! || exit 1; sleep 0.1; done
        $bin/createdb -h $home bench &&
            $bin/pgbench -h $home -i -q -s 5 bench &&
            $bin/pgbench -h $home -c 8 -j 2 -t 500 bench >report
        result=\$?
        cat report
        kill -INT \$! && wait \$! && [ \$result = 0 ] &&
            grep -q 'processed: 4000/4000' report && grep -q 'failed transactions: 0 ' report" &&
        had initdb postgres pgbench
}

declare -A outcome
failed=0
for name; do
    printf '== %s\n' "$name"
    rm -rf "$told"
    mkdir -m 1777 "$told"
    "$name" >"$work/$name.log" 2>&1
    case $? in
    0) outcome[$name]="ok" ;;
    2) outcome[$name]='skipped: not there' ;;
    *) outcome[$name]=FAILED failed=1
       tail -40 "$work/$name.log" ;;
    esac
    [ -z "$conf" ] || outcome[$name]+=", $(ls "$told" | wc -l) processes told of themselves"
done
for name; do printf '%-10s %s\n' "$name" "${outcome[$name]}"; done
exit $failed
