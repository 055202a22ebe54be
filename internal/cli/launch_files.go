package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/launcher"
)

// inPlace reports whether a file has a path, and somebody has to stay to remove it. What is wrong with the options is
// noted elsewhere.
func inPlace(s *settings) bool {
	return slices.ContainsFunc(s.all("file"), func(v setting) bool {
		f, err := launcher.ParseFile(v.text)
		return err == nil && f.Path != ""
	})
}

// masking reads --mask and --mask-min.
func masking(s *settings) launcher.Masking {
	return launcher.Masking{On: s.bool("mask"), Least: maskMin(s)}
}

func maskMin(s *settings) int {
	v := s.one("mask-min")
	n, err := strconv.Atoi(v.text)
	if err != nil || n < 1 {
		s.bad(v, "not a number of bytes", "write it as 6; the least is 1")
	}
	return n
}

// files reads --file.
func files(s *settings) []environ.FileSpec {
	var list []environ.FileSpec
	allowed := s.strs("allow-name")
	for _, v := range s.all("file") {
		f, err := launcher.ParseFile(v.text)
		if err != nil {
			s.fail(v, err)
			continue
		}
		switch why, hint := choosesCode(f.Name, f.Name, allowed); {
		case why != "":
			s.bad(v, why, hint)
		case slices.ContainsFunc(list, func(o environ.FileSpec) bool { return o.Name == f.Name }):
			s.bad(v, f.Name+" has a --file already", "give one --file for each name")
		case f.Path != "" && slices.ContainsFunc(list, func(o environ.FileSpec) bool { return o.Path == f.Path }):
			s.bad(v, "another --file has that path", "give each a path of its own")
		}
		list = append(list, f)
	}
	fileSets(s, list)
	return list
}

// fileSets reads --file-set, and notes for each file which set it is in.
func fileSets(s *settings, list []environ.FileSpec) {
	for _, v := range s.all("file-set") {
		dir, err := filepath.Abs(v.text)
		used := false
		for i := range list {
			if err == nil && list[i].Path != "" && filepath.Dir(list[i].Path) == dir {
				used = true
				if list[i].Set != "" {
					s.bad(v, "it is given twice", "give each folder once")
				}
				list[i].Set = dir
			}
		}
		switch {
		case err != nil:
			s.bad(v, "the current folder is gone", "write an absolute path")
		case v.text == "" || dir == "/":
			s.bad(v, "it names no folder that vaultexec could make", "write it as /run/app/tls")
		case slices.ContainsFunc(list, func(f environ.FileSpec) bool { return f.Path == dir }):
			s.bad(v, "a --file has that path", "the files of a set are in its folder: --file KEY="+dir+"/key.pem")
		case !used:
			s.bad(v, "no --file is in it", "name its files: --file KEY="+dir+"/key.pem")
		}
	}
}

// checkFiles finds what the options alone show to be impossible. One case is a --file that no --env names, with no
// --path that could give it. The other is --on-change signal without a file that could change under the command.
func checkFiles(s *settings, o *launcher.Options) {
	all := slices.ContainsFunc(o.Sources, func(src environ.Source) bool { return src.Name == "" })
	for _, f := range o.Rules.Files {
		named := slices.ContainsFunc(o.Sources, func(src environ.Source) bool { return src.Name == f.Name })
		if !all && !named {
			s.faults = append(s.faults, &fault.Error{Kind: fault.Usage,
				What: "cannot make the file of --file " + f.Name, Why: "no option gives " + f.Name,
				Hint: fmt.Sprintf("--env %s=PATH#KEY gives it", f.Name)})
		}
	}
	replaceable := slices.ContainsFunc(o.Rules.Files, func(f environ.FileSpec) bool { return f.Path != "" })
	if s.bool("watch") && o.Watching.OnChange.Do == launcher.ReactSignal && !replaceable {
		s.bad(s.one("on-change"), "there is no --file NAME=PATH to read anew",
			"give one, as nothing else can change under a running command, or restart the command: --on-change restart")
	}
}
