package cli

const filesHelp = `How a secret is handed over as a file. NAME_FILE holds its path; NAME is not set.

  --file TLS_KEY               sealed in memory: /proc/self/fd/N, for the program
                               itself and what inherits its descriptors
  --file TLS_KEY=/run/app/key  at that path until the end, on a memory file system
                               unless --allow-disk; on a change it is replaced in
                               one step
  --file TLS_KEY:base64        the value is the base64 of what the file holds
  --file TLS_KEY=/run/app/key,mode=0440,owner=root:ssl-cert
                               who may read it; mode 0400 and vaultexec's own user
                               otherwise. Another owner takes root.

  --file-set /run/app/tls      makes that folder, and replaces all --file paths in
                               it together, such as a certificate and its key

The folder of a file, or of a set, has to exist, and nobody but root, vaultexec's
user and the owner of the file may be able to change it or one on the way to it.
Only an earlier file of vaultexec's is replaced. At the end files and sets are
removed; after a SIGKILL of vaultexec they stay, and the next start replaces them.
Two runs must not name the same path.

With --watch a change restarts the command. --on-change signal:HUP replaces the
files and sends that signal instead, when all of them are new.

A --file is replaced by itself, so that a program that reads two of them at any
time may find one that is new and one that is not yet. The folder of a set is a
link to one edition of all its files, and one rename makes the next one current:

  - who opens the folder once (cd, open with O_DIRECTORY), and the files from
    there, has one edition; the last one stays for ten seconds for them
  - who opens two files by their whole paths may have one of each if the change
    comes in between, and has to read again; after the signal there is none

A list, such as the ca_chain of a certificate, is JSON unless the filter lines
ends each of its items with a line break (see vaultexec help references).
`
