# phrasebook.sh - greetings in many languages. To be sourced by a shell program.

phrasebook_data=@out@/share/phrasebook

# phrasebook_languages: one line for each language, "CODE <tab> name".
phrasebook_languages() {
	grep -v '^#' "$phrasebook_data/languages.tsv" | cut -f 1,2
}

# phrasebook_greeting CODE HH:MM: what people say at that time. Fails when the language is not known.
phrasebook_greeting() {
	if ! [ -f "$phrasebook_data/timetable/$1.txt" ]; then
		echo "phrasebook: no language $1" >&2
		return 1
	fi
	awk -F '\t' -v now="$2" '$1 <= now { greeting = $2 } END { print greeting }' "$phrasebook_data/timetable/$1.txt"
}
