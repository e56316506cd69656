package shell

import (
	"fmt"
	"math/big"
	"strings"
)

// The interpreter's own test and [ parse operands such as ( and -n as operators, so
// that a value could decide which branch is taken. The functions in this file evaluate
// up to four arguments by the rules of POSIX instead.

// classicTest evaluates the command test or [; args[0] is its name. It returns decided
// as false for what it leaves to the interpreter: tests of files, -a and -o, and
// syntax errors. The error says that an operand is not a number.
func classicTest(args []string) (result, decided bool, err error) {
	ops := args[1:]
	if args[0] == "[" {
		if len(ops) == 0 || ops[len(ops)-1] != "]" {
			return false, false, nil
		}
		ops = ops[:len(ops)-1]
	}
	return posixTest(ops)
}

func posixTest(ops []string) (result, decided bool, err error) {
	not := func(ops []string) (bool, bool, error) {
		r, ok, err := posixTest(ops)
		return !r, ok, err
	}
	switch len(ops) {
	case 0:
		return false, true, nil
	case 1:
		return ops[0] != "", true, nil
	case 2:
		switch ops[0] {
		case "!":
			return ops[1] == "", true, nil
		case "-n":
			return ops[1] != "", true, nil
		case "-z":
			return ops[1] == "", true, nil
		}
	case 3:
		if r, ok, err := compare(ops[0], ops[1], ops[2]); ok {
			return r, true, err
		}
		if ops[0] == "!" {
			return not(ops[1:])
		}
		if ops[0] == "(" && ops[2] == ")" {
			return posixTest(ops[1:2])
		}
	case 4:
		if ops[0] == "!" {
			return not(ops[1:])
		}
		if ops[0] == "(" && ops[3] == ")" {
			return posixTest(ops[1:3])
		}
	}
	return false, false, nil
}

// compare evaluates a comparison of strings or numbers. ok is false if op is not a
// comparison operator.
func compare(a, op, b string) (result, ok bool, err error) {
	switch op {
	case "=", "==":
		return a == b, true, nil
	case "!=":
		return a != b, true, nil
	case "-eq", "-ne", "-lt", "-le", "-gt", "-ge":
	default:
		return false, false, nil
	}
	var n [2]big.Int
	for i, s := range []string{a, b} {
		text := strings.TrimPrefix(strings.TrimSpace(s), "+")
		if _, valid := n[i].SetString(text, 10); !valid || strings.Contains(text, "_") {
			return false, true, fmt.Errorf("%q is not a whole number", s)
		}
	}
	switch c := n[0].Cmp(&n[1]); op {
	case "-eq":
		return c == 0, true, nil
	case "-ne":
		return c != 0, true, nil
	case "-lt":
		return c < 0, true, nil
	case "-le":
		return c <= 0, true, nil
	case "-gt":
		return c > 0, true, nil
	default:
		return c >= 0, true, nil
	}
}
