package safety_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/pipe-runner/pipe/safety"
)

func TestDir(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "root")
	for _, dir := range []string{root, filepath.Join(root, "sub"), filepath.Join(base, "out"), root + "-beside"} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"root/in", "out/secret", "root-beside/x"} {
		if err := os.WriteFile(filepath.Join(base, f), []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"root/escape": "../out", "root/abs": filepath.Join(base, "out"), "root/fine": "sub/../in", "alias": "root"} {
		if err := os.Symlink(to, filepath.Join(base, link)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := safety.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	for path, inside := range map[string]bool{
		"root/in": true, "root/fine": true, "root/sub/../in": true,
		"root/escape/secret": false, "root/abs/secret": false, "root/../out/secret": false, "root/sub/../../out/secret": false,
		"out/secret": false, "root-beside/x": false,
	} {
		f, err := d.OpenFile(base+"/"+path, os.O_RDONLY, 0)
		if err == nil {
			_ = f.Close()
		}
		var out *safety.OutsideError
		if inside != (err == nil) || !inside && !errors.As(err, &out) {
			t.Errorf("%s: %v", path, err)
		}
		if _, serr := d.Stat(base + "/" + path); inside != (serr == nil) {
			t.Errorf("stat %s: %v", path, serr)
		}
		if _, lerr := d.Lstat(base + "/" + path); inside != (lerr == nil) {
			t.Errorf("lstat %s: %v", path, lerr)
		}
	}
	if f, err := d.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
		t.Error(err)
	} else {
		_ = f.Close()
	}
	if info, err := d.Lstat(filepath.Join(root, "fine")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("a link is followed: %v", err)
	}
	if _, err := d.Stat(root); err != nil {
		t.Errorf("the root itself: %v", err)
	}
	if _, err := d.Stat(filepath.Join(root, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := d.Lstat(os.DevNull); err != nil {
		t.Error(err)
	}
	if _, err := d.Stat(base); err == nil || err.Error() != base+" is outside of the root "+root {
		t.Errorf("%v", err)
	}
	if _, err := safety.OpenDir(filepath.Join(base, "none")); err == nil {
		t.Error("a missing root is opened")
	}
	var none *safety.Dir
	if _, err := none.Stat(base); err != nil {
		t.Error(err)
	}
	if _, err := none.Lstat(base); err != nil {
		t.Error(err)
	}
	if err := none.Close(); err != nil {
		t.Error(err)
	}
	if f, err := none.OpenFile(filepath.Join(base, "out/secret"), os.O_RDONLY, 0); err != nil {
		t.Error(err)
	} else {
		_ = f.Close()
	}
	alias, err := safety.OpenDir(filepath.Join(base, "alias"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = alias.Close() }()
	if f, err := alias.OpenFile(filepath.Join(root, "in"), os.O_RDONLY, 0); err != nil {
		t.Errorf("by its real name: %v", err)
	} else {
		_ = f.Close()
	}
}
