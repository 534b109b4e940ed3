// Command ring is golang/groupcache's own ring, for the benchmark `ring` beside ours.
//
// Its argument is the number of peers. For each number in a line of its input it looks that
// many keys up, and prints the nanoseconds of CPU time that one took.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"github.com/golang/groupcache/consistenthash"
)

// What getrusage calls the thread that asks.
const thread = 1

func main() {
	peers, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	ring := consistenthash.New(50, nil)
	for i := 0; i < peers; i++ {
		ring.Add(fmt.Sprintf("http://10.0.%d.%d:9080", i/250, i%250))
	}
	keys := make([]string, 4096)
	for i := range keys {
		keys[i] = fmt.Sprintf("%016x", uint64(i)*0x9e3779b97f4a7c15)
	}
	runtime.LockOSThread()
	lines := bufio.NewScanner(os.Stdin)
	found := 0
	for lines.Scan() {
		count, err := strconv.Atoi(lines.Text())
		if err != nil {
			log.Fatal(err)
		}
		before := used()
		for i := 0; i < count; i++ {
			found += len(ring.Get(keys[i%len(keys)]))
		}
		fmt.Printf("%.1f\n", float64(used()-before)/float64(count))
	}
	if found == 0 {
		log.Fatal("no peer owns anything")
	}
}

// used is the thread's CPU time in nanoseconds.
func used() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(thread, &usage); err != nil {
		log.Fatal(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}
