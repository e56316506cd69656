package job

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/pipe-runner/pipe/runner/internal/state"
)

// The streams of a log.
const (
	LogStdout = "stdout"
	LogStderr = "stderr"
	LogKeeper = "keeper" // what the keeper has to say
)

// missing is the stream of what a reader has to say: that it came too late.
const missing = "reader"

// maxPiece is the length of the longest piece of a line, in bytes.
const maxPiece = 16 << 10

// logWriter writes a log: lines in the form that container runtimes use (CRI
// logging format), in files that are put aside when they are full:
//
//	2026-01-02T15:04:05.123456789Z stdout F a line
//
// P stands instead of F for a piece that the next one of its stream continues.
// A full disk loses output, which is counted, and never blocks the job.
type logWriter struct {
	dir   string
	limit int64
	files int

	mu   sync.Mutex
	f    *os.File
	size int64
	lost int64
	buf  []byte
	open map[string]bool // streams whose last piece did not end its line
}

// write adds output of a stream.
func (w *logWriter) write(stream string, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(data) > 0 { // in bounded portions, so that the buffer stays small
		part := data[:min(len(data), 32<<10)]
		w.portion(stream, part)
		data = data[len(part):]
	}
}

func (w *logWriter) portion(stream string, data []byte) {
	n := len(data)
	w.buf = w.buf[:0]
	now := time.Now().UTC()
	for len(data) > 0 {
		piece, tag := data[:min(len(data), maxPiece)], byte('P')
		skip := 0
		if i := bytes.IndexByte(piece, '\n'); i >= 0 {
			piece, tag, skip = piece[:i], 'F', 1
		}
		data = data[len(piece)+skip:]
		if w.open == nil {
			w.open = map[string]bool{}
		}
		w.open[stream] = tag == 'P'
		w.buf = now.AppendFormat(w.buf, "2006-01-02T15:04:05.000000000Z")
		w.buf = append(w.buf, ' ')
		w.buf = append(w.buf, stream...)
		w.buf = append(w.buf, ' ', tag, ' ')
		w.buf = append(w.buf, piece...)
		w.buf = append(w.buf, '\n')
	}
	if err := w.flush(); err != nil {
		w.lost += int64(n)
	}
}

// endLines ends the lines that a process began and did not end.
func (w *logWriter) endLines() {
	for _, stream := range []string{LogStdout, LogStderr} {
		w.mu.Lock()
		open := w.open[stream]
		w.mu.Unlock()
		if open {
			w.write(stream, []byte("\n"))
		}
	}
}

// flush writes the buffer, into a new file if need be.
func (w *logWriter) flush() error {
	if w.f != nil && w.size+int64(len(w.buf)) > w.limit && w.size > 0 {
		// The new file is there before the old one is put aside.
		next := filepath.Join(w.dir, "log.new")
		f, err := state.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND)
		if err != nil {
			return err
		}
		_ = w.f.Close()
		w.shift()
		if err := os.Rename(next, logName(w.dir, 0)); err != nil {
			_ = f.Close()
			w.f = nil
			return err
		}
		w.f, w.size = f, 0
	}
	if w.f == nil {
		f, err := state.OpenFile(filepath.Join(w.dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND)
		if err != nil {
			return err
		}
		w.f, w.size = f, 0
		if info, err := f.Stat(); err == nil {
			w.size = info.Size()
		}
	}
	k, err := w.f.Write(w.buf)
	w.size += int64(k)
	if err != nil && k > 0 { // nothing is left of it, or the next line would stand behind half of this one
		if w.f.Truncate(w.size-int64(k)) == nil {
			w.size -= int64(k)
		}
	}
	return err
}

// shift puts the full file aside, and removes the oldest.
func (w *logWriter) shift() {
	name := func(n int) string { return logName(w.dir, n) }
	_ = os.Remove(name(w.files - 1))
	for n := w.files - 2; n >= 0; n-- {
		_ = os.Rename(name(n), name(n+1))
	}
}

// logName returns the name of a file of a log; 0 is the one that grows.
func logName(dir string, n int) string {
	if n == 0 {
		return filepath.Join(dir, "log")
	}
	return filepath.Join(dir, fmt.Sprintf("log.%d", n))
}

// LogLine is a line of a log, or a piece of one.
type LogLine struct {
	Time    time.Time
	Stream  string
	Partial bool // the next line of the stream continues it
	Text    []byte
}

// parseLine takes a line apart; what is no line of a log is the keeper's.
func parseLine(line []byte) LogLine {
	stamp, rest, _ := bytes.Cut(line, []byte(" "))
	stream, rest, _ := bytes.Cut(rest, []byte(" "))
	tag, text, ok := bytes.Cut(rest, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil || !ok || len(tag) != 1 {
		return LogLine{Stream: LogKeeper, Text: line}
	}
	return LogLine{at, string(stream), tag[0] == 'P', text}
}

// Logs calls f for each line of the log of a job, the oldest first. With follow
// it goes on until the job has ended, or ctx is done, which is no error. A line
// is valid during the call only; an error of f ends the reading.
func (s *Store) Logs(ctx context.Context, id string, follow bool, f func(LogLine) error) error {
	if _, err := s.Get(id); err != nil {
		return err
	}
	r := &logReader{dir: s.job(id), f: f}
	defer r.close()
	if !follow {
		return r.rest()
	}
	news, done := changes(r.dir)
	defer done()
	ended := make(chan struct{})
	waitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(ended)
		_, _ = s.Wait(waitCtx, id)
	}()
	for {
		if err := r.rest(); err != nil {
			return err
		}
		select {
		case <-ended:
			return r.rest()
		case <-ctx.Done():
			return nil
		case <-news:
		}
	}
}

// changes returns a channel that tells of changes in a folder, and what ends
// that. Where the system has no more watches to give, it tells every now and then.
func changes(dir string) (<-chan struct{}, func()) {
	news := make(chan struct{}, 1)
	stop := make(chan struct{})
	tell := func() {
		select {
		case news <- struct{}{}:
		default:
		}
	}
	notify, err := fsnotify.NewWatcher()
	if err == nil {
		if err = notify.Add(dir); err != nil {
			_ = notify.Close()
		}
	}
	if err != nil {
		tick := time.NewTicker(100 * time.Millisecond)
		go func() {
			for {
				select {
				case <-tick.C:
					tell()
				case <-stop:
					return
				}
			}
		}()
		return news, func() { tick.Stop(); close(stop) }
	}
	go func() {
		for {
			select {
			case _, ok := <-notify.Events:
				if !ok {
					return
				}
			case _, ok := <-notify.Errors: // there is news all the same
				if !ok {
					return
				}
			}
			tell()
		}
	}()
	return news, func() { _ = notify.Close() }
}

// logReader reads a log, also over the change of its files.
type logReader struct {
	dir  string
	f    func(LogLine) error
	cur  *os.File
	in   *bufio.Reader
	half []byte // of a line that is being written
}

func (r *logReader) close() {
	if r.cur != nil {
		_ = r.cur.Close()
	}
}

// rest reads all that there is.
func (r *logReader) rest() error {
	for {
		if r.cur == nil {
			f, err := r.oldest()
			if err != nil || f == nil {
				return err
			}
			r.use(f)
		}
		place := r.place() // before the reading: a file that is put aside is not written any more
		if err := r.read(); err != nil {
			return err
		}
		if place == 0 {
			return nil
		}
		if place > r.highest() { // it was read too slowly, and its place is not known any more
			if err := r.f(LogLine{Time: time.Now(), Stream: missing, Text: []byte("lines are missing here: the log was full, and they went before they were read")}); err != nil {
				return err
			}
		}
		if !r.next(place) {
			return nil // there is nothing to be had; who follows will look again
		}
	}
}

// highest returns the number of the oldest file of the log.
func (r *logReader) highest() int {
	n := 0
	for ; ; n++ {
		if _, err := os.Stat(logName(r.dir, n+1)); err != nil {
			return n
		}
	}
}

// next goes on to the file after the one at a place. The files may move on
// meanwhile: then it is looked for again, but not for ever.
func (r *logReader) next(place int) bool {
	for range 100 {
		f, err := openLog(r.dir, place-1)
		now := r.place()
		if err == nil && f != nil && now == place {
			r.use(f)
			return true
		}
		if f != nil {
			_ = f.Close()
		}
		if place = now; place == 0 {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

func (r *logReader) use(f *os.File) {
	r.close()
	r.cur, r.in, r.half = f, bufio.NewReaderSize(f, 64<<10), nil
}

// place returns which file of the log the open one is now; one past the last if
// it is gone.
func (r *logReader) place() int {
	mine, err := r.cur.Stat()
	if err != nil {
		return 0
	}
	for n := 0; ; n++ {
		info, err := os.Stat(logName(r.dir, n))
		if err != nil {
			if n == 0 {
				continue // it is being put aside, or all are gone
			}
			return n
		}
		if os.SameFile(mine, info) {
			return n
		}
	}
}

// oldest opens the oldest file of the log; nil if there is none yet.
func (r *logReader) oldest() (*os.File, error) {
	return openLog(r.dir, r.highest())
}

// openLog opens a file of a log; nil if it is not there.
func openLog(dir string, n int) (*os.File, error) {
	f, err := state.Open(logName(dir, n))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

// read reads the open file to its end.
func (r *logReader) read() error {
	for {
		line, err := r.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || err != nil && len(line) > 0 {
			r.half = append(r.half, line...)
			if err == io.EOF {
				return nil
			}
			continue
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(r.half) > 0 {
			line = append(r.half, line...)
			r.half = nil
		}
		if err := r.f(parseLine(line[:len(line)-1])); err != nil {
			return err
		}
	}
}

// LastLine returns the last line that a job wrote; the zero LogLine if there is
// none.
func (s *Store) LastLine(id string) (LogLine, error) {
	if !idForm().MatchString(id) {
		return LogLine{}, &NotFoundError{Name: id}
	}
	for n := range 2 { // it may just have been put aside
		f, err := openLog(s.job(id), n)
		if err != nil || f == nil {
			return LogLine{}, err
		}
		size, err := f.Seek(0, io.SeekEnd)
		tail := make([]byte, min(size, 4<<10))
		if err == nil && size > 0 {
			_, err = f.ReadAt(tail, size-int64(len(tail)))
		}
		_ = f.Close()
		if err != nil {
			return LogLine{}, err
		}
		for tail = bytes.TrimSuffix(tail, []byte("\n")); len(tail) > 0; {
			at := bytes.LastIndexByte(tail, '\n')
			l := parseLine(tail[at+1:])
			if l.Stream != LogKeeper || at < 0 && n == 1 {
				return l, nil
			}
			tail = tail[:max(at, 0)]
		}
	}
	return LogLine{}, nil
}
