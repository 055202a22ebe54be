# bash completion for vaultexec. vaultexec itself knows what may follow; what stands after the first -- is another program's.

# Readline's words end at = : and @, too (COMP_WORDBREAKS): _vaultexec_words becomes the words as the shell reads them, up to
# the cursor, _vaultexec_starts where each begins in COMP_WORDS, and _vaultexec_replaced the part of the last one that
# readline replaces.
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
	# After = and : it begins anew; an @ is replaced with what follows it.
	[[ $raw == [=:] ]] || _vaultexec_replaced=$raw
	[[ $raw == @ || ${_vaultexec_words[n]} != *"@$raw" ]] || _vaultexec_replaced=@$raw
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
	local program current value kind word prefix i _vaultexec_replaced=''
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
	prefix=${_vaultexec_words[-1]}
	prefix=${prefix:0:${#prefix}-${#_vaultexec_replaced}}
	prefix=${prefix//[\'\"\\]/}
	_vaultexec_words=("${_vaultexec_words[@]//[\'\"\\]/}")
	current=${_vaultexec_words[-1]}

	mapfile -t answer < <("$program" __complete "${_vaultexec_words[@]:1}" </dev/null 2>/dev/null)
	kind=${answer[0]-}
	value=${current##*=}
	case $kind in
	files) mapfile -t COMPREPLY < <(compgen -f -- "$value") ;;
	dirs) mapfile -t COMPREPLY < <(compgen -d -- "$value") ;;
	commands) mapfile -t COMPREPLY < <(compgen -c -- "$value") ;;
	words)
		for word in "${answer[@]:1}"; do
			word=${word#"$prefix"}
			# Within quotes nothing needs a backslash. What the shell would expand there, or take for their end, is left out: a
			# name in Vault is not to run anything.
			case $_vaultexec_replaced in
			\"*) [[ $word != *[\$\`\"\\!]* ]] || continue ;;
			\'*) [[ $word != *\'* ]] || continue ;;
			esac
			[[ $_vaultexec_replaced == [\'\"]* || $word != *[!A-Za-z0-9_./:=@%+,#-]* ]] || printf -v word %q "$word"
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
