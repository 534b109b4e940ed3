// Package origin sends GET requests over wasi:http.
package origin

import (
	"errors"
	"fmt"
	"net/url"

	outgoing "items/bindings/wasi_http_outgoing_handler"
	http "items/bindings/wasi_http_types"
	streams "items/bindings/wasi_io_streams"
	wit "items/bindings/wit/types"
)

// What can go wrong beside the origin's own errors.
var (
	ErrTimedOut = errors.New("the origin did not answer in time")
	ErrDenied   = errors.New("the plugin may not reach the origin: see its `network`")
)

// The most bytes asked for in one read.
const readMax = 64 * 1024

// Response is an answer, whatever its status.
type Response struct {
	Status uint16
	Body   []byte
	header map[string]string
}

// Header returns the header of that name, in lower case, if there is one.
func (r *Response) Header(name string) wit.Option[string] {
	if value, ok := r.header[name]; ok {
		return wit.Some(value)
	}
	return wit.None[string]()
}

// Get sends a GET, conditional if there is a validator, and reads the whole answer within so
// many nanoseconds.
func Get(target *url.URL, validator wit.Option[string], timeout uint64) (*Response, error) {
	header := http.MakeFields()
	if validator.IsSome() {
		header.Append("if-none-match", []byte(validator.Some()))
	}
	request := http.MakeOutgoingRequest(header)
	scheme := http.MakeSchemeHttp()
	if target.Scheme == "https" {
		scheme = http.MakeSchemeHttps()
	}
	request.SetScheme(wit.Some(scheme))
	request.SetAuthority(wit.Some(target.Host))
	request.SetPathWithQuery(wit.Some(target.EscapedPath()))

	sent := outgoing.Handle(request, wit.Some(options(timeout)))
	if sent.IsErr() {
		return nil, failed(sent.Err())
	}
	future := sent.Ok()
	defer future.Drop()
	answered := future.Subscribe()
	answered.Block()
	answered.Drop()

	// The outer result only says that this is the first time it is asked for.
	answer := future.Get().Some().Ok()
	if answer.IsErr() {
		return nil, failed(answer.Err())
	}
	return read(answer.Ok())
}

// The node watches these, so that a silent origin cannot hold the plugin up: the first byte
// has to come within the sum of the first two.
func options(timeout uint64) *http.RequestOptions {
	options := http.MakeRequestOptions()
	options.SetConnectTimeout(wit.Some(timeout / 4))
	options.SetFirstByteTimeout(wit.Some(timeout - timeout/4))
	options.SetBetweenBytesTimeout(wit.Some(timeout))
	return options
}

// Handles are dropped in an order the node insists on: a stream before its body, and that
// before its response.
func read(incoming *http.IncomingResponse) (*Response, error) {
	defer incoming.Drop()
	response := &Response{Status: incoming.Status(), header: map[string]string{}}

	header := incoming.Headers()
	for _, entry := range header.Entries() {
		response.header[entry.F0] = string(entry.F1)
	}
	header.Drop()

	body := incoming.Consume().Ok()
	defer body.Drop()
	stream := body.Stream().Ok()
	defer stream.Drop()
	for {
		part := stream.BlockingRead(readMax)
		if part.IsOk() {
			response.Body = append(response.Body, part.Ok()...)
			continue
		}
		if part.Err().Tag() == streams.StreamErrorClosed {
			return response, nil
		}
		cause := part.Err().LastOperationFailed()
		defer cause.Drop()
		if code := http.HttpErrorCode(cause); code.IsSome() {
			return nil, failed(code.Some())
		}
		return nil, errors.New(cause.ToDebugString())
	}
}

func failed(code http.ErrorCode) error {
	switch code.Tag() {
	case http.ErrorCodeDnsTimeout, http.ErrorCodeConnectionTimeout,
		http.ErrorCodeConnectionReadTimeout, http.ErrorCodeHttpResponseTimeout:
		return ErrTimedOut
	case http.ErrorCodeHttpRequestDenied, http.ErrorCodeDestinationIpProhibited:
		return ErrDenied
	default:
		return fmt.Errorf("the origin cannot be reached (wasi:http error %d)", code.Tag())
	}
}
