package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"
)

// This file is all that knows Badger. A value has the key
//
//	number of the store path, 4 bytes, and number of the piece, 2 bytes
//
// big-endian. Values are cut into pieces so that Badger has no use for its value
// log; the first piece begins with the value's size, a varint.
const (
	pieceSize = 256 << 10
	maxPieces = 1 << 16
	version   = 1 // Badger's, of all keys
)

func key(number uint32, piece int) []byte {
	k := binary.BigEndian.AppendUint32(make([]byte, 0, 6), number)
	return binary.BigEndian.AppendUint16(k, uint16(piece))
}

// storeOptions are for reading and writing. Badger neither compresses nor
// caches: records are compressed as a whole, and the kernel caches them.
func storeOptions(dir string) badger.Options {
	o := badger.DefaultOptions(dir)
	o.Logger = nil // what matters comes as an error
	o.MetricsEnabled = false
	o.DetectConflicts = false
	o.NumVersionsToKeep = 1
	o.Compression, o.BlockCacheSize, o.IndexCacheSize = options.None, 0, 0
	o.BloomFalsePositive = 0 // names says what is there
	o.BlockSize = 16 << 10   // there are some 20 bytes in an index for each
	return o
}

// A store reads records.
type store struct {
	db *badger.DB
}

// openStore opens the database in dir, whose files the caller has checked.
func openStore(dir string) (s *store, err error) {
	o := storeOptions(dir)
	o.ReadOnly = true
	// Ours is the lock on the generation; and no lock file is needed in a
	// directory that is never written to.
	o.BypassLockGuard = true
	// Before it takes a block apart, Badger shall know that it is undamaged.
	o.ChecksumVerificationMode = options.OnBlockRead
	err = guard(func() error {
		db, err := badger.OpenManaged(o)
		s = &store{db}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	return s, nil
}

func (s *store) close() error {
	return guard(s.db.Close)
}

// get returns a copy of a value. All errors, "key not found" among them, mean
// damage.
func (s *store) get(number uint32) (value []byte, err error) {
	err = s.view(number, func(b []byte) error {
		value = bytes.Clone(b)
		return nil
	})
	return value, err
}

// view runs use with a value, which it must not keep, and which may be in a
// mapped file: a fault there, in use, is an error as well. All errors but those
// of use mean damage.
func (s *store) view(number uint32, use func(value []byte) error) error {
	return guard(func() error {
		txn := s.db.NewTransactionAt(version, false)
		defer txn.Discard()
		return viewValue(txn, number, use)
	})
}

var errPieces = errors.New("value is damaged")

func viewValue(txn *badger.Txn, number uint32, use func(value []byte) error) error {
	var value []byte // if there is more than one piece
	left := int64(0)
	for piece := 0; piece == 0 || left > 0; piece++ {
		item, err := txn.Get(key(number, piece))
		if err != nil {
			return err
		}
		err = item.Value(func(b []byte) error {
			if piece == 0 {
				size, n := binary.Uvarint(b)
				if n <= 0 || size > pieceSize*maxPieces {
					return errPieces
				}
				left, b = int64(size), b[n:]
			}
			if int64(len(b)) != min(left, pieceSize) {
				return errPieces
			}
			left -= int64(len(b))
			if piece == 0 && left == 0 {
				return use(b)
			}
			value = append(value, b...)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if value == nil {
		return nil
	}
	return use(value)
}

// guard calls f and turns panics into errors: those of Badger, which panics
// where it does not expect damage, and memory faults, which are what is left of
// an error when a mapped file cannot be read.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("badger panicked: %v", r)
		}
	}()
	return f()
}

// A storeWriter makes a database. It is not safe for concurrent use.
type storeWriter struct {
	db     *badger.DB
	stream *badger.StreamWriter
	buf    *z.Buffer
}

const flushSize = 1 << 20 // how much is given to Badger at a time

// newStoreWriter begins a database in dir, which must be empty.
func newStoreWriter(dir string) (*storeWriter, error) {
	o := storeOptions(dir)
	o.BypassLockGuard = true // the directory is nobody else's
	// Badger's defaults are sparse files of 2 GiB, which exFAT writes in full,
	// and arenas of twice a table of 64 MiB.
	o.MemTableSize, o.ValueLogFileSize, o.BaseTableSize = 8<<20, 1<<20, 512<<10
	o.NumMemtables, o.NumCompactors = 2, 2
	o.NumLevelZeroTables, o.NumLevelZeroTablesStall = 2, 4
	w := &storeWriter{}
	err := guard(func() (err error) {
		if w.db, err = badger.OpenManaged(o); err != nil {
			return err
		}
		w.stream = w.db.NewStreamWriter()
		return w.stream.Prepare()
	})
	if err != nil {
		w.abandon()
		return nil, fmt.Errorf("create records: %w", err)
	}
	w.buf = z.NewBuffer(2*flushSize, "narvault index")
	return w, nil
}

// put adds a value. Numbers must ascend.
func (w *storeWriter) put(number uint32, value []byte) error {
	size := binary.AppendUvarint(nil, uint64(len(value)))
	for piece := 0; piece == 0 || len(value) > 0; piece++ {
		n := min(len(value), pieceSize)
		kv := &pb.KV{Key: key(number, piece), Value: value[:n], Version: version, StreamId: 1}
		if piece == 0 {
			kv.Value = append(size, value[:n]...)
		}
		value = value[n:]
		badger.KVToBuffer(kv, w.buf)
	}
	if w.buf.LenNoPadding() < flushSize {
		return nil
	}
	return w.flush()
}

func (w *storeWriter) flush() error {
	err := guard(func() error { return w.stream.Write(w.buf) })
	w.buf.Reset()
	if err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}

// finish completes the database; it is not yet durable.
func (w *storeWriter) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	err := guard(w.stream.Flush)
	w.stream = nil
	if err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	db := w.db
	w.db = nil
	if err := guard(db.Close); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}

// abandon ends the writer if it did not finish, and frees its memory. What it
// wrote is worth nothing then.
func (w *storeWriter) abandon() {
	_ = guard(func() error {
		if w.stream != nil {
			w.stream.Cancel()
		}
		return nil
	})
	_ = guard(func() error {
		if w.db != nil {
			return w.db.Close()
		}
		return nil
	})
	if w.buf != nil {
		_ = w.buf.Release()
	}
	w.stream, w.db, w.buf = nil, nil, nil
}
