// Package runtime is what the generated bindings need of Go: handles, and memory that the
// host fills.
//
// After the Go package of wit-bindgen 0.60.0, under Apache-2.0 WITH LLVM-exception. It
// differs in when memory is collected.
package runtime

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"unsafe"
)

// Handle is a resource of the host; none once it has been given away.
type Handle struct {
	value int32
}

func MakeHandle(value int32) *Handle {
	handle := &Handle{}
	handle.Set(value)
	return handle
}

func (h *Handle) Use() int32 {
	if h.value == 0 {
		panic("a handle is used after it was dropped or given away")
	}
	return h.value
}

func (h *Handle) Take() int32 {
	value := h.Use()
	h.value = 0
	return value
}

func (h *Handle) TakeOrNil() int32 {
	value := h.value
	h.value = 0
	return value
}

func (h *Handle) Set(value int32) {
	if value == 0 {
		panic("a handle is nil")
	}
	if h.value != 0 {
		panic("a handle is set twice")
	}
	h.value = value
}

// Allocate is memory that stays where it is until the pinner lets go.
func Allocate(pinner *runtime.Pinner, size, align uintptr) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	if size%align != 0 {
		panic(fmt.Sprintf("%d bytes are no multiple of %d", size, align))
	}
	var pointer unsafe.Pointer
	switch align {
	case 1:
		pointer = unsafe.Pointer(unsafe.SliceData(make([]uint8, size)))
	case 2:
		pointer = unsafe.Pointer(unsafe.SliceData(make([]uint16, size/align)))
	case 4:
		pointer = unsafe.Pointer(unsafe.SliceData(make([]uint32, size/align)))
	case 8:
		pointer = unsafe.Pointer(unsafe.SliceData(make([]uint64, size/align)))
	default:
		panic(fmt.Sprintf("an alignment of %d", align))
	}
	pinner.Pin(pointer)
	return pointer
}

// What the host allocated in here during this call.
var pinner = runtime.Pinner{}

// Beyond this much on the heap, a call begins with a collection.
const heapMax = 8 << 20

var heap = []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}

// Unpin is called at the beginning of each call, once its arguments are Go's.
func Unpin() {
	pinner.Unpin()
	metrics.Read(heap)
	if heap[0].Value.Uint64() > heapMax {
		runtime.GC()
	}
}

// Whether the runtime is there to allocate.
var isStarted = false

func init() {
	// Collecting asks the host for the time. Begun by an allocation in cabi_realloc, it
	// would do so where the component model allows no call of the host, which is a trap.
	// So nothing is collected but at the beginning of a call, and where a plugin asks for
	// it with runtime.GC().
	debug.SetGCPercent(-1)
	isStarted = true
}

//go:linkname sbrk runtime.sbrk
func sbrk(size uintptr) unsafe.Pointer

// The host allocates with this what it hands over. The adapter from WASI preview 1 takes
// the memory for its state in the same way, before the runtime has started: from sbrk,
// because the heap would otherwise grow over it.
//
//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	if old != nil || oldSize != 0 {
		panic("the host resizes no allocation")
	}
	if isStarted {
		return Allocate(&pinner, size, align)
	}
	start := sbrk(size + align - 1)
	return unsafe.Add(start, -uintptr(start)&(align-1))
}
