package nixstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	magicClient = 0x390c9deb
	magicServer = 0x5452eecb
	// ourVersion is what Nix 2.4 to 2.33 speak; later ones are asked to.
	ourVersion = 2<<8 | 7
	// minVersion has NAR hash, content address and signatures in its infos
	// (Nix 2.0).
	minVersion = 2<<8 | 4

	queryValidPaths = 1
	queryPathInfos  = 2
	queryClosure    = 7

	// dyingDelay is how long a child whose output ended may take to tell its
	// exit status.
	dyingDelay = 2 * time.Second
)

// A server is one running "nix-store --serve --write", or whatever a test puts
// behind the two pipes. One request at a time; after an error it is dead.
type server struct {
	life   context.Context // of the child
	cmd    *exec.Cmd
	stdin  *os.File
	stdout *os.File
	stderr tail
	ended  chan struct{} // closed when the child was waited for
	status error         // of the child; read it after ended

	q        question
	a        *answer
	turn     chan struct{} // holds one token: who has it may use q, a and failed
	failed   error         // why the server is dead
	stopOnce sync.Once
	overdue  bool // stop had to kill it; read it after stop
}

// startServer runs cmd and greets it. The context governs the child's life, as
// in exec.CommandContext; cmd must have been made with it.
func startServer(ctx context.Context, cmd *exec.Cmd, storeDir string) (*server, error) {
	v := &server{life: ctx, cmd: cmd, ended: make(chan struct{}), turn: make(chan struct{}, 1)}
	if err := v.start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", title(cmd), err)
	}
	v.q = question{bufio.NewWriterSize(v.stdin, 64<<10)}
	v.a = newAnswer(v.stdout, storeDir)
	v.turn <- struct{}{}
	if err := v.do(ctx, func() error { return greet(v.q, v.a) }); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

// start starts the child between two pipes of our own: those of exec.Cmd must
// not be read while Wait runs, and we want to know at any time whether it died.
func (v *server) start() error {
	childIn, stdin, err := os.Pipe()
	if err != nil {
		return err
	}
	defer childIn.Close()
	stdout, childOut, err := os.Pipe()
	if err != nil {
		stdin.Close()
		return err
	}
	defer childOut.Close()
	v.stdin, v.stdout = stdin, stdout
	v.cmd.Stdin, v.cmd.Stdout, v.cmd.Stderr = childIn, childOut, &v.stderr
	// A process group of its own: Ctrl-C on the terminal is for us, and the
	// locks must hold until we have put away what we were doing.
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	v.cmd.Cancel = func() error { v.kill(); return os.ErrProcessDone }
	if err := v.cmd.Start(); err != nil {
		stdin.Close()
		stdout.Close()
		return err
	}
	go func() {
		v.status = v.cmd.Wait()
		if errors.Is(v.status, exec.ErrWaitDelay) {
			v.status = nil // it ended well; something it started keeps its standard error
		}
		close(v.ended)
	}()
	return nil
}

// greet exchanges magic numbers and versions.
func greet(q question, a *answer) error {
	q.uint64(magicClient)
	if err := q.Flush(); err != nil {
		return err
	}
	magic, err := a.uint64()
	if err != nil {
		return err
	}
	if magic != magicServer {
		return protocolErrorf("greeting %#x, not %#x (does a program print to standard output when it starts?)", magic, uint64(magicServer))
	}
	version, err := a.uint64()
	if err != nil {
		return err
	}
	if version>>8 != minVersion>>8 || version < minVersion {
		return protocolErrorf("serve protocol version %d.%d; versions 2.4 to 2.255 are understood (Nix 2.0 and later)", version>>8, version&0xff)
	}
	q.uint64(min(version, ourVersion))
	return q.Flush()
}

// do runs one exchange. When it fails, or ctx ends meanwhile, the child is
// ended: where it is in the protocol is not known any more.
func (v *server) do(ctx context.Context, exchange func() error) error {
	select {
	case <-v.turn:
		defer func() { v.turn <- struct{}{} }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if v.failed != nil {
		return v.failed
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, v.kill)
	err := exchange()
	switch {
	case !stop():
		v.stop(0)
		v.failed = fmt.Errorf("%s: %w", title(v.cmd), context.Cause(ctx))
	case err != nil:
		v.failed = v.diagnose(err)
	}
	return v.failed
}

// diagnose ends the child and says what happened: its exit status when it went
// away by itself, otherwise what was wrong with its answer.
func (v *server) diagnose(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		err = io.ErrUnexpectedEOF // which of its pipes tells first that it ended is chance
	}
	patience := time.Duration(0)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		patience = dyingDelay // it is on its way out: let it tell its status
	}
	v.stop(patience)
	if cause := context.Cause(v.life); cause != nil {
		return fmt.Errorf("%s: %w", title(v.cmd), cause)
	}
	if patience > 0 && !v.overdue && v.status != nil {
		err = v.status
	}
	return &CommandError{Command: title(v.cmd), Err: err, Stderr: v.stderr.String()}
}

// stop closes the child's standard input, on which it ends, kills it when it
// takes longer than patience, and waits for it.
func (v *server) stop(patience time.Duration) {
	v.stopOnce.Do(func() {
		v.stdin.Close()
		timer := time.AfterFunc(patience, v.kill)
		<-v.ended
		v.overdue = !timer.Stop()
		v.stdout.Close()
	})
}

// kill ends the child and its children at once and unblocks reads and writes
// even if one of them holds on to the pipes.
func (v *server) kill() {
	// Only while the child was not waited for is the number its own.
	select {
	case <-v.ended:
	default:
		syscall.Kill(-v.cmd.Process.Pid, syscall.SIGKILL)
	}
	past := time.Unix(1, 0)
	v.stdin.SetDeadline(past)
	v.stdout.SetDeadline(past)
}

// close ends the server and returns what its end says, unless an earlier error
// has said it.
func (v *server) close() error {
	<-v.turn
	defer func() { v.turn <- struct{}{} }()
	if v.failed != nil {
		v.stop(0)
		return nil
	}
	v.stop(waitDelay)
	v.failed = fmt.Errorf("%s: %w", title(v.cmd), os.ErrClosed)
	if v.status != nil {
		return &CommandError{Command: title(v.cmd), Err: v.status, Stderr: v.stderr.String()}
	}
	return nil
}
