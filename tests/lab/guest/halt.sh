#!/bin/sh
# Ends or restarts the machine: file systems first. Called as shutdown, poweroff, halt or reboot.
case "${0##*/} $*" in
reboot* | *" -r"*) how=reboot ;;
*) how=poweroff ;;
esac
sync
# Deepest mount first; what is busy is made read-only.
awk '$1 ~ "^/dev/" || $3 == "overlay" { print $2 }' /proc/mounts | sort -r | while read -r path; do
	umount "$path" 2>/dev/null || mount -o remount,ro "$path" 2>/dev/null
done
sync
exec busybox "$how" -f
