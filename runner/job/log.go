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
	LogKeeper = "keeper" // messages of the keeper
)

// missing is the stream of a line that Logs inserts where it could not read lines in
// time.
const missing = "reader"

// maxPiece is the maximum length in bytes of one entry. Longer lines are split.
const maxPiece = 16 << 10

// logWriter writes the log of a job in the CRI logging format that container
// runtimes use, one entry a line:
//
//	2026-01-02T15:04:05.123456789Z stdout F a line
//
// The tag F marks an entry that ends its line, P one that the next entry of the same
// stream continues. A full file is rotated. Output that cannot be written, say to a
// full disk, is dropped and counted; it never blocks the job.
type logWriter struct {
	dir   string // the folder of the job
	limit int64  // size in bytes beyond which a file is rotated
	files int    // maximum number of files

	mu   sync.Mutex
	f    *os.File // the current file; nil: not open
	size int64    // of f
	lost int64    // bytes of output that could not be written
	buf  []byte
	open map[string]bool // streams whose last entry did not end its line
}

// write appends output of a stream to the log.
func (w *logWriter) write(stream string, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(data) > 0 { // in portions, to bound the size of w.buf
		part := data[:min(len(data), 32<<10)]
		w.portion(stream, part)
		data = data[len(part):]
	}
}

// portion appends output of a stream to the log, in one write. The caller holds w.mu.
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

// endLines ends unfinished lines of stdout and stderr.
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

// flush writes w.buf, and rotates the files first if the current one is full.
func (w *logWriter) flush() error {
	if w.f != nil && w.size+int64(len(w.buf)) > w.limit && w.size > 0 {
		// Create the new file first: if that fails, the old one stays in use.
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
	if err != nil && k > 0 { // remove the half entry, or the next one would be appended to it
		if w.f.Truncate(w.size-int64(k)) == nil {
			w.size -= int64(k)
		}
	}
	return err
}

// shift removes the oldest file and renumbers the others, so that no file is named
// as the current one.
func (w *logWriter) shift() {
	name := func(n int) string { return logName(w.dir, n) }
	_ = os.Remove(name(w.files - 1))
	for n := w.files - 2; n >= 0; n-- {
		_ = os.Rename(name(n), name(n+1))
	}
}

// logName returns the path of file n of a log. File 0 is the current one, and higher
// numbers are older.
func logName(dir string, n int) string {
	if n == 0 {
		return filepath.Join(dir, "log")
	}
	return filepath.Join(dir, fmt.Sprintf("log.%d", n))
}

// LogLine is a line of a log, or a piece of a long or unfinished one.
type LogLine struct {
	Time    time.Time // when it was written; zero if unknown
	Stream  string    // LogStdout, LogStderr, LogKeeper, or another for a note of Logs itself
	Partial bool      // the next LogLine of the stream continues this one
	Text    []byte    // without a newline at the end
}

// parseLine parses an entry of a log. A line that is not an entry is returned as the
// keeper's.
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

// Logs calls f for each line of the log of a job, the oldest first. With follow it
// then waits for new lines until the job has ended or ctx is done; neither is an
// error. If f returns an error, Logs stops and returns that error. The text of a line
// is valid only until f returns. If the log is rotated away faster than f takes the
// lines, Logs passes a line that says so.
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

// changes returns a channel that receives a value after changes in a folder, and a
// function that releases the watch. If the folder cannot be watched, the channel
// receives a value every 100 ms.
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
			case _, ok := <-notify.Errors: // events may have been lost
				if !ok {
					return
				}
			}
			tell()
		}
	}()
	return news, func() { _ = notify.Close() }
}

// logReader reads a log while its files are being written and rotated.
type logReader struct {
	dir  string // the folder of the job
	f    func(LogLine) error
	cur  *os.File      // the file being read; nil: none yet
	in   *bufio.Reader // reads cur
	half []byte        // the beginning of an entry whose end has not been written yet
}

func (r *logReader) close() {
	if r.cur != nil {
		_ = r.cur.Close()
	}
}

// rest reads the log to its present end.
func (r *logReader) rest() error {
	for {
		if r.cur == nil {
			f, err := r.oldest()
			if err != nil || f == nil {
				return err
			}
			r.use(f)
		}
		place := r.place() // before reading: a file that has been rotated is not written any more
		if err := r.read(); err != nil {
			return err
		}
		if place == 0 {
			return nil
		}
		if place > r.highest() { // the file was removed before its end was read
			if err := r.f(LogLine{Time: time.Now(), Stream: missing, Text: []byte("lines are missing here: the log was full, and they were removed before they were read")}); err != nil {
				return err
			}
		}
		if !r.next(place) {
			return nil // nothing can be read now; with follow, Logs calls rest again
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

// next opens the file that follows the current one, which is at place. The files may
// be rotated meanwhile; next then tries again, a limited number of times. It returns
// false if it failed.
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

// use makes f the current file.
func (r *logReader) use(f *os.File) {
	r.close()
	r.cur, r.in, r.half = f, bufio.NewReaderSize(f, 64<<10), nil
}

// place returns the number that the current file has now. If the file was removed,
// place returns one more than the highest number.
func (r *logReader) place() int {
	mine, err := r.cur.Stat()
	if err != nil {
		return 0
	}
	for n := 0; ; n++ {
		info, err := os.Stat(logName(r.dir, n))
		if err != nil {
			if n == 0 {
				continue // the files are being rotated, or all have been removed
			}
			return n
		}
		if os.SameFile(mine, info) {
			return n
		}
	}
}

// oldest opens the oldest file of the log. It returns nil if there is none yet.
func (r *logReader) oldest() (*os.File, error) {
	return openLog(r.dir, r.highest())
}

// openLog opens file n of a log. It returns nil if the file does not exist.
func openLog(dir string, n int) (*os.File, error) {
	f, err := state.Open(logName(dir, n))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

// read reads the current file to its present end.
func (r *logReader) read() error {
	for {
		line, err := r.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || err != nil && len(line) > 0 {
			r.half = append(r.half, line...)
			if errors.Is(err, io.EOF) {
				return nil
			}
			continue
		}
		if errors.Is(err, io.EOF) {
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

// LastLine returns the last line that the processes of a job wrote. If there is none
// near the end of the log, it returns a message of the keeper or the zero LogLine.
func (s *Store) LastLine(id string) (LogLine, error) {
	if !idForm().MatchString(id) {
		return LogLine{}, &NotFoundError{Name: id}
	}
	for n := range 2 { // the log may just have been rotated
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
