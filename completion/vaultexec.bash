# bash completion for vaultexec. vaultexec itself knows what may follow; what stands after the first -- is another program's.

# Readline's words end at = : and @, too (COMP_WORDBREAKS): _vaultexec_words becomes the words as the shell reads them, up to
# the cursor, and _vaultexec_starts where each begins in COMP_WORDS.
_vaultexec_split() {
	local line=${COMP_LINE:0:COMP_POINT} raw rest i n=-1
	_vaultexec_words=() _vaultexec_starts=()
	for ((i = 0; i <= COMP_CWORD; i++)); do
		raw=${COMP_WORDS[i]}
		rest=${line#"${line%%[![:space:]]*}"}
		if ((n < 0)) || [[ $rest != "$line" ]]; then
			n=$((n + 1))
			_vaultexec_words[n]='' _vaultexec_starts[n]=$i
		fi
		((${#raw} <= ${#rest})) || raw=$rest # the cursor is inside of it
		_vaultexec_words[n]+=$raw
		line=${rest:${#raw}}
	done
}

# What stands after --: bash-completion knows the program's own way; without it, commands and files.
_vaultexec_command() {
	local first=$1
	if declare -F _comp_command_offset >/dev/null; then
		_comp_command_offset "$first"
	elif declare -F _command_offset >/dev/null; then
		_command_offset "$first"
	elif ((COMP_CWORD == first)); then
		mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
	else
		compopt -o filenames -o default
	fi
}

_vaultexec() {
	local program current value quoted='' prefix kind word i
	local -a _vaultexec_words _vaultexec_starts answer
	COMPREPLY=()
	program=$(type -P -- "$1") || return 0
	_vaultexec_split
	for ((i = 1; i < ${#_vaultexec_words[@]} - 1; i++)); do
		if [[ ${_vaultexec_words[i]} == -- ]]; then
			_vaultexec_command "${_vaultexec_starts[i + 1]}"
			return
		fi
	done

	# Quotes and backslashes are taken off; nothing in the line is ever expanded or run.
	for i in "${!_vaultexec_words[@]}"; do
		word=${_vaultexec_words[i]}
		quoted=''
		case $word in
		[\'\"]*) quoted=${word:0:1} word=${word:1} word=${word%"$quoted"} ;;
		*) word=${word//\\/} ;;
		esac
		_vaultexec_words[i]=$word
	done
	current=$word

	mapfile -t answer < <("$program" __complete "${_vaultexec_words[@]:1}" </dev/null 2>/dev/null)
	kind=${answer[0]-}
	value=${current##*=}
	case $kind in
	files) mapfile -t COMPREPLY < <(compgen -f -- "$value") ;;
	dirs) mapfile -t COMPREPLY < <(compgen -d -- "$value") ;;
	commands) mapfile -t COMPREPLY < <(compgen -c -- "$value") ;;
	words)
		# Readline replaces what follows the last of its own breaks.
		prefix=''
		if [[ -z $quoted ]]; then
			for word in = : @; do
				if [[ $COMP_WORDBREAKS == *$word* && $current == *$word* ]]; then
					word=${current%"${current##*"$word"}"}
					((${#word} <= ${#prefix})) || prefix=$word
				fi
			done
		fi
		for word in "${answer[@]:1}"; do
			word=${word#"$prefix"}
			[[ -n $quoted || $word != *[!A-Za-z0-9_./:=@%+,#-]* ]] || printf -v word %q "$word"
			COMPREPLY+=("$word")
		done
		# More is to follow a folder, an = and a #.
		case ${COMPREPLY[0]-} in
		*[/=:#]) ((${#COMPREPLY[@]} > 1)) || compopt -o nospace ;;
		esac
		return
		;;
	esac
	[[ $kind == commands ]] || compopt -o filenames
}

complete -F _vaultexec vaultexec
