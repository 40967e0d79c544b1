# Reads languages.tsv and writes for each language the greeting of every quarter of an hour, "HH:MM <tab> greeting", to
# dir/CODE.txt.
BEGIN { FS = OFS = "\t" }

/^#/ { next }

{
	file = dir "/" $1 ".txt"
	for (q = 0; q < 96; q++)
		printf "%02d:%02d\t%s\n", int(q / 4), q % 4 * 15, greeting(int(q / 4)) > file
	close(file)
}

function greeting(hour) {
	if (hour < 5 || hour >= 22) return $6
	if (hour < 11) return $3
	if (hour < 18) return $4
	return $5
}
