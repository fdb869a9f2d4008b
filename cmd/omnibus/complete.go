package main

import (
	"slices"

	"github.com/spf13/cobra"
)

// completing completes the arguments of a command: the first is a topic, the second a group of it, as the configuration has them. Nothing is
// connected to. Of a command with many topics every argument is one.
func (a *app) completing(c *cobra.Command, many bool) *cobra.Command {
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		t, err := a.topologyOfConfig()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var all []string
		switch {
		case len(args) == 0 || many:
			for _, s := range t.Topics {
				all = append(all, s.Name)
			}
			for _, s := range t.Groups {
				all = append(all, s.Topic)
			}
			all = slices.DeleteFunc(all, func(name string) bool { return slices.Contains(args, name) })
		case len(args) == 1:
			for _, s := range t.Groups {
				if s.Topic == args[0] {
					all = append(all, s.Group)
				}
			}
		}
		if len(args) >= 2 && c.Name() == "resume" {
			return nil, cobra.ShellCompDirectiveDefault // a file
		}
		slices.Sort(all)
		return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// completingFiles completes the one argument of a command by what the shell knows.
func completingFiles(c *cobra.Command) *cobra.Command {
	c.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return c
}
