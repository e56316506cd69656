package main

// This file holds pipe check.

import (
	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]…",
		Short: "Report everything that is wrong in pipeline files, and run nothing",
		Long: `Report everything that is wrong in pipeline files (pipe.yaml without one; - is
stdin), and run nothing. The exit status is 2 if anything is, and 0 otherwise.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{defaultFile}
			}
			var failed error
			for _, file := range args {
				if _, err := load(file); err != nil {
					failed = err
				}
			}
			return failed
		},
	}
}
