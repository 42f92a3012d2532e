#!/bin/bash
# Makes the initramfs of the lab's guest. Arguments: unpacked packages (kernel, agent), scripts, where the file `initrd` goes.
set -euo pipefail
parts=$1 scripts=$2 out=$3
PATH=/usr/sbin:/usr/bin:/sbin:/bin
kernel=$parts/kernel
[ -d "$kernel/lib/modules" ] || { mkdir -p "$kernel/lib" && mv "$kernel/usr/lib/modules" "$kernel/lib/"; }
version=$(basename "$kernel"/lib/modules/*)
depmod -b "$kernel" "$version"

root=$out/root
mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc/acpi/PWRF,proc,sys,dev,run,tmp,mnt,var,root,lib/modules/lab,lib64}
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do
	case $applet in
	busybox) ;;
	*) ln -sf busybox "$root/bin/$applet" ;;
	esac
done
# The kernel calls modprobe by this path.
ln -sf /bin/busybox "$root/sbin/modprobe"
install -m 755 "$scripts/init" "$root/init"
for name in shutdown poweroff halt reboot; do
	rm -f "$root/bin/$name"
	install -m 755 "$scripts/halt" "$root/sbin/$name"
done
ln -s /sbin/poweroff "$root/etc/acpi/PWRF/00000080"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

# Programs with the libraries that they name.
programs() {
	local program library
	for program in "$@"; do
		install -D -m 755 "$program" "$root/sbin/$(basename "$program")"
		for library in $(ldd "$program" | grep -o '/[^ ]*'); do
			mkdir -p "$root$(dirname "$library")"
			cp -L "$library" "$root$library"
		done
	done
}
for name in mke2fs blkid; do rm -f "$root/bin/$name"; done
programs "$(command -v mke2fs)" "$(command -v e2fsck)" "$(command -v resize2fs)" "$(command -v blkid)" "$parts/agent/usr/sbin/qemu-ga"
for name in ext2 ext4; do ln -sf mke2fs "$root/sbin/mkfs.$name"; done
cp /etc/mke2fs.conf "$root/etc/mke2fs.conf"

# Modules, unpacked: `lab/GROUP` lists those that init loads, in order; the rest is found by modprobe.
group() {
	local list=$root/lib/modules/lab/$1 module path inner
	shift
	: >"$list"
	for module in "$@"; do
		modprobe -d "$kernel" -S "$version" --show-depends "$module" | awk '$1 == "insmod" { print $2 }' | while read -r path; do
			inner=${path#"$kernel/lib/modules/"}
			inner=${inner%.xz}
			mkdir -p "$root/lib/modules/$(dirname "$inner")"
			case $path in
			*.xz) xz -dc "$path" >"$root/lib/modules/$inner" ;;
			*) cp "$path" "$root/lib/modules/$inner" ;;
			esac
			grep -qxF "$inner" "$list" || echo "$inner" >>"$list"
		done
	done
}
group boot virtio_pci virtio_blk virtio_net virtio_console virtio-rng af_packet button evdev
group scsi virtio_scsi sd_mod sr_mod
group sata ahci sd_mod sr_mod
group later ext4 erofs isofs vfat nls_cp437 nls_ascii nls_utf8 loop overlay squashfs dm-verity dm-crypt virtiofs
cp "$kernel/lib/modules/$version"/modules.{builtin,order} "$root/lib/modules/$version/"
[ ! -e "$kernel/lib/modules/$version/modules.builtin.modinfo" ] ||
	cp "$kernel/lib/modules/$version/modules.builtin.modinfo" "$root/lib/modules/$version/"
depmod -b "$root" "$version"

(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0) >"$out/initrd"
rm -rf "$root"
