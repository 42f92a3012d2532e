#!/bin/sh
# Makes a machine's mounts equal to its map, and keeps them so as disks come and go.
#
# The map is the text on the disk whose serial begins with `dejimamap` (words are separated by tabs):
#   dejima-map 1 SHA-256 of all that follows
#   volume PATH new|kept SERIAL
#   dataset PATH SERIAL SERIAL ...
#   end
# Its disk is replaced for each change. The whole one that came last is obeyed, even while there is none. Behind the text it
# holds 16 MiB of nothing: they are read, once, to say that what the map does not name is used no more.
# Disks are known by their serials alone, and told apart by `diskseq`, which the kernel (5.15 or newer) never gives twice.
# While nothing changes only names and numbers in /sys are read. Neither network nor udev nor an agent is needed.
#
#   /run/dejima/state     what is mounted, a line each, in the words of the map
#   /run/dejima/pid       the process that obeys
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# The newer call to mount takes options of 255 bytes at most: too few for the layers of a large dataset.
export PATH LIBMOUNT_FORCE_MOUNT2=always
run=/run/dejima
tab=$(printf '\t')
# A kernel stacks at most 500 layers, and their names must fit into a page: more of them are stacked in two storeys.
most_layers=400
behind_text=16777216

say() {
	printf 'dejima: %s\n' "$*"
}

# Says something about an entry once, until it is something else.
complain() {
	[ "$(cat "$run/said/$key" 2>/dev/null)" = "$1" ] && return
	printf '%s\n' "$1" >"$run/said/$key"
	say "$1"
}

# All disks with their numbers and sizes, in `now`.
scan() {
	now=
	for block in /sys/block/sd* /sys/block/vd*; do
		{ read -r seq <"$block/diskseq" && read -r size <"$block/size"; } 2>/dev/null || continue
		now="$now ${block##*/}:$seq:$size"
	done
}

serial_of() {
	case $1 in
	sd*) tail -c +5 "/sys/block/$1/device/vpd_pg80" ;;
	*) cat "/sys/block/$1/serial" ;;
	esac 2>/dev/null | tr -d '\000\n '
}

# disk/SERIAL holds name, number and size of each disk; `maps` lists the disks with a map.
identify() {
	rm -rf "$run/disk"
	mkdir "$run/disk"
	maps=
	for word in $now; do
		name=${word%%:*} size=${word##*:} seq=${word#*:}
		seq=${seq%:*} serial=
		{ read -r serial <"$run/seen/$seq"; } 2>/dev/null
		if [ -z "$serial" ]; then
			serial=$(serial_of "$name")
			[ -z "$serial" ] || echo "$serial" >"$run/seen/$seq"
		fi
		case $serial in
		'' | *[!0-9A-Za-z-]*) continue ;;
		dejimamap*) maps="$maps $name:$seq:$size"; continue ;;
		esac
		case $name in vd*) serial=vd-$serial ;; esac
		# Of two with one serial the earlier is about to go.
		other=0
		{ read -r _ other _ <"$run/disk/$serial"; } 2>/dev/null
		[ "$other" -gt "$seq" ] || echo "$name $seq $size" >"$run/disk/$serial"
	done
}

# The disk with a serial, in `name`, `seq` and `size`.
find_disk() {
	name='' seq='' size='' short=$1
	{ read -r name seq size <"$run/disk/$1"; } 2>/dev/null && return
	# virtio-blk has room for 20 signs of a serial.
	while [ ${#short} -gt 20 ]; do short=${short%?}; done
	{ read -r name seq size <"$run/disk/vd-$short"; } 2>/dev/null
}

# Which disks stand behind serials, in `behind`; fails where one is missing.
find_disks() {
	behind=
	IFS=$tab
	set -- $1
	unset IFS
	for serial; do
		find_disk "$serial" || return 1
		behind="$behind $name:$seq"
	done
}

# Takes over the newest whole map: `want` holds its entries in order, `wanted/` their keys and the serials of shards.
read_maps() {
	torn=
	for word in $maps; do
		name=${word%%:*} size=${word##*:} seq=${word#*:}
		seq=${seq%:*}
		[ "$seq" -gt "$used" ] || continue
		{ head -c $((size * 512 - behind_text)) "/dev/$name" | tr -d '\000' >"$run/text"; } 2>/dev/null
		first='' sum=none
		{ IFS= read -r first && sum=$(sha256sum); } <"$run/text"
		key=map
		if [ "$first" != "dejima-map 1 ${sum%% *}" ]; then
			torn=yes
			complain "the map on $name is torn: the last whole one is obeyed"
			continue
		fi
		used=$seq
		take_over
		complain "the map on $name (number $seq) is obeyed"
	done
}

take_over() {
	rm -rf "$run/wanted.new"
	mkdir "$run/wanted.new"
	while IFS=$tab read -r kind path rest; do
		case $kind in
		volume) age=${rest%%"$tab"*} serials=${rest#*"$tab"} ;;
		dataset) age=kept serials=$rest ;;
		*) continue ;;
		esac
		case $path in /*) ;; *) continue ;; esac
		case $serials in '' | *[!0-9a-z"$tab"-]*) continue ;; esac
		key=$(printf '%s\t%s\t%s' "$kind" "$path" "$serials" | sha256sum)
		key=${key%% *}
		: >"$run/wanted.new/$key"
		printf '%s\t%s\t%s\t%s\t%s\n' "$key" "$kind" "$path" "$age" "$serials" >&3
		[ "$kind" = dataset ] || continue
		IFS=$tab
		for shard in $serials; do : >"$run/wanted.new/$shard"; done
		unset IFS
	done <"$run/text" 3>"$run/want.new"
	rm -rf "$run/wanted"
	mv "$run/wanted.new" "$run/wanted"
	mv "$run/want.new" "$run/want"
}

# What left the map, or lost a disk, goes at once; a volume whose disk is still there goes when nothing uses it any more.
# have/KEY: kind, path, serials; then the disks behind them.
take_away() {
	held=
	for file in "$run"/have/*; do
		[ -e "$file" ] || continue
		{ IFS=$tab read -r kind path serials && IFS= read -r was; } <"$file"
		key=${file##*/} there=
		if find_disks "$serials" && [ "$behind" = "$was" ]; then there=$kind; fi
		if [ -n "$there" ] && [ -e "$run/wanted/$key" ]; then continue; fi
		if [ "$there" = volume ]; then
			let_go || continue
		else
			umount -l "$path"
		fi
		# What is mounted beneath a path goes with it.
		for other in "$run"/have/*; do
			{ IFS=$tab read -r kind inner serials; } <"$other"
			case $inner/ in "$path"/*) forget "${other##*/}" "$kind $inner" ;; esac
		done
	done
	for file in "$run"/shard/*; do
		[ -e "$file" ] || continue
		shard=${file##*/}
		read -r was <"$file"
		if [ -e "$run/wanted/$shard" ] && find_disk "$shard" && [ "$name $seq" = "$was" ]; then continue; fi
		umount -l "$run/shards/$shard"
		rm -f "$file"
		rmdir "$run/shards/$shard"
	done
}

# Nobody loses what he writes: a volume that is used is written down and stays, and the platform waits for it.
let_go() {
	umount "$path" 2>/dev/null && return
	sync
	complain "volume $path is used: it goes when nothing uses it any more"
	held="$held$path$tab"
	return 1
}

forget() {
	unstack "$run/stacks/$1"
	rm -f "$run/have/$1" "$run/said/$1"
	say "$2 is gone"
}

unstack() {
	[ -d "$1" ] || return
	for storey in "$1"/s*; do
		[ ! -d "$storey" ] || { umount -l "$storey"; rmdir "$storey"; } 2>/dev/null
	done
	rm -f "$1"/*
	rmdir "$1"
}

# What is not there yet, in the order of the map; what lies beneath something that is missing waits for it.
bring_up() {
	# Where a volume has not gone yet, nothing else comes.
	pending=$torn$held missing=$held
	while IFS=$tab read -r key kind path age serials <&3; do
		[ ! -e "$run/have/$key" ] || continue
		if waits; then continue; fi
		if find_disks "$serials" && "show_$kind"; then
			printf '%s\t%s\t%s\n%s\n' "$kind" "$path" "$serials" "$behind" >"$run/part"
			mv "$run/part" "$run/have/$key"
			rm -f "$run/said/$key"
			say "$kind $path is there"
		else
			pending=yes missing="$missing$path$tab"
		fi
	done 3<"$run/want"
}

waits() {
	IFS=$tab
	for above in $missing; do
		case $path in "$above" | "$above"/*) unset IFS; return 0 ;; esac
	done
	unset IFS
	return 1
}

# Formats what is new and bears no signature, once. Whatever else is there is left as it is.
show_volume() {
	find_disk "$serials" || return
	device=/dev/$name
	blkid -p "$device" >/dev/null 2>&1
	if [ $? = 2 ]; then
		if [ "$age" != new ]; then
			complain "volume $path holds no file system, and is not new: it is left as it is"
			return 1
		fi
		# A disk that cannot be read has no signature either.
		head -c 1048576 "$device" >/dev/null 2>&1 || return
		mkfs.ext4 -q -F -E nodiscard "$device" </dev/null || return
		say "volume $path is formatted"
	fi
	type=$(blkid -p -s TYPE -o value "$device" 2>/dev/null)
	if ! why=$(mkdir -p "$path" 2>&1 && mount -t "${type:-auto}" -o rw,nodev,nosuid "$device" "$path" 2>&1); then
		complain "volume $path cannot be mounted: $why"
		return 1
	fi
	grow
}

# The file system of a volume that became larger becomes larger too.
grow() {
	echo "$size" >"$run/size/$key"
	case $(blkid -p -s TYPE -o value "/dev/$name" 2>/dev/null) in
	ext?) resize2fs "/dev/$name" </dev/null >/dev/null 2>&1 || complain "volume $path does not grow" ;;
	esac
	return 0
}

grow_all() {
	while IFS=$tab read -r key kind path age serials <&3; do
		[ "$kind" = volume ] && [ -e "$run/have/$key" ] && find_disk "$serials" || continue
		was=
		{ read -r was <"$run/size/$key"; } 2>/dev/null
		[ "$was" = "$size" ] || grow
	done 3<"$run/want"
}

# One tree of all shards, none of which is shown alone.
show_dataset() {
	IFS=$tab
	set -- $serials
	unset IFS
	for shard; do
		[ ! -e "$run/shard/$shard" ] || continue
		find_disk "$shard" || return
		mkdir -p "$run/shards/$shard"
		if ! why=$(mount -t erofs -o ro,nodev,nosuid,noexec "/dev/$name" "$run/shards/$shard" 2>&1); then
			complain "shard $shard of $path cannot be mounted: $why"
			return 1
		fi
		echo "$name $seq" >"$run/shard/$shard"
	done
	if why=$(mkdir -p "$path" 2>&1 && join "$@" 2>&1); then return 0; fi
	complain "dataset $path cannot be shown: $why"
	unstack "$run/stacks/$key"
	return 1
}

# One shard is its tree; several are layers, with names of a few signs relative to the directory of their stack.
join() {
	if [ $# = 1 ]; then
		mount -o bind "$run/shards/$1" "$path"
		return
	fi
	unstack "$run/stacks/$key"
	mkdir "$run/stacks/$key" && cd "$run/stacks/$key" || return
	count=0 storey='' storeys=''
	for shard; do
		ln -s "../../shards/$shard" "$count"
		storey=$storey:$count count=$((count + 1))
		[ $((count % most_layers)) = 0 ] || [ $count = $# ] || continue
		# One storey is the whole; of several, one of a single layer needs no mount of its own.
		if [ $# -gt "$most_layers" ] && [ "${storey#:*:}" != "$storey" ]; then
			mkdir "s$count" && overlay "$storey" "s$count" || return
			storey=:s$count
		fi
		storeys=$storeys$storey storey=
	done
	overlay "$storeys" "$path"
}

overlay() {
	mount -t overlay -o "ro,nodev,nosuid,noexec,lowerdir=${1#:}" dejima "$2"
}

tell() {
	while IFS=$tab read -r key kind path age serials; do
		[ ! -e "$run/have/$key" ] || printf '%s\t%s\t%s\n' "$kind" "$path" "$serials"
	done <"$run/want" >"$run/state.new"
	mv "$run/state.new" "$run/state"
}

# Says that what the map does not name is used no more.
answer() {
	[ -z "$held" ] && [ "$used" != "$answered" ] || return
	for word in $maps; do
		name=${word%%:*} seq=${word#*:}
		[ "${seq%:*}" = "$used" ] && cat "/dev/$name" >/dev/null 2>&1 && answered=$used
	done
}

obey() {
	for module in virtio_scsi sd_mod erofs ext4 overlay; do modprobe -q "$module" 2>/dev/null; done
	for folder in seen disk have said size shard shards stacks wanted; do mkdir -p "$run/$folder"; done
	[ -e "$run/want" ] || : >"$run/want"
	echo $$ >"$run/pid"
	used=0 answered=0 held='' before=none lively=0 tick=0 pending='' maps='' torn=
	while :; do
		scan
		tick=$(((tick + 1) % 5))
		if [ "$now" != "$before" ]; then
			before=$now lively=50
			identify
		elif [ -z "$pending" ] || [ $tick != 0 ]; then
			doze
			continue
		fi
		read_maps
		take_away
		bring_up
		grow_all
		tell
		answer
		doze
	done
}

# Short for ten seconds after a change, then long.
doze() {
	if [ $lively -gt 0 ]; then
		lively=$((lively - 1))
		sleep 0.2 2>/dev/null || usleep 200000 2>/dev/null || sleep 1
	else
		sleep 1
	fi
}

# cloud-init runs this at the first boot alone and waits for its end, so under systemd it becomes a service.
settle() {
	home=/usr/local/lib/dejima unit=/etc/systemd/system/dejima-mounts.service
	mkdir -p "$home"
	cp "$0" "$home/mount.sh"
	cat >"$unit" <<-END
		[Unit]
		Description=Mounts as the platform's map says
		[Service]
		ExecStart=/bin/sh $home/mount.sh obey
		Restart=always
		RestartSec=1
		[Install]
		WantedBy=multi-user.target
	END
	systemctl daemon-reload
	systemctl enable dejima-mounts.service
	systemctl restart --no-block dejima-mounts.service
}

case ${1-} in
obey) obey ;;
*)
	if [ -d /run/systemd/system ]; then
		settle
	else
		# `$$` would be the pid of this shell, which ends.
		sh "$0" obey </dev/null &
	fi
	;;
esac
