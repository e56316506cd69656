//go:build !linux

package signame

func realtimeName(int) string   { return "" }
func realtimeNumber(string) int { return 0 }
