// Command peer is a node of golang/groupcache, as small as one can be: the other half of
// the tests that stand cachecluster nodes and Go nodes in one fleet.
//
// Group "g" fills its misses from an origin, GET {origin}/{key in hexadecimal}, which is
// told who asks; or, for benchmarks, every value is of the given size. Clients get a key
// with GET {front}/{key in hexadecimal}.
package main

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"

	"github.com/golang/groupcache"
)

func main() {
	self := flag.String("self", "", "this peer's base URL")
	peers := flag.String("peers", "", "all peers' base URLs, separated by commas")
	origin := flag.String("origin", "", "base URL of the origin")
	size := flag.Int("size", 0, "bytes of every value, without an origin")
	flag.Parse()

	// Without a mux, which would clean paths and so lose keys.
	pool := groupcache.NewHTTPPoolOpts(*self, nil)
	pool.Set(strings.Split(*peers, ",")...)
	fixed := []byte(strings.Repeat("x", *size))
	group := groupcache.NewGroup("g", 1<<30, groupcache.GetterFunc(
		func(_ context.Context, key string, dest groupcache.Sink) error {
			if *size > 0 {
				return dest.SetBytes(fixed)
			}
			request, err := http.NewRequest("GET", *origin+"/"+hex.EncodeToString([]byte(key)), nil)
			if err != nil {
				return err
			}
			request.Header.Set("X-Asked-By", *self)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				return err
			}
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("the origin answered %s", response.Status)
			}
			return dest.SetBytes(body)
		}))

	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	between, err := net.Listen("tcp", strings.TrimPrefix(*self, "http://"))
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(between, pool)) }()
	fmt.Println(front.Addr())
	log.Fatal(http.Serve(front, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := hex.DecodeString(strings.TrimPrefix(r.URL.Path, "/"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var value []byte
		if err := group.Get(r.Context(), string(key), groupcache.AllocatingByteSliceSink(&value)); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Write(value)
	})))
}
