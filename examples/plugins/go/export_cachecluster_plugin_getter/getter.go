// Package export_cachecluster_plugin_getter fetches values from an HTTP origin.
//
// Settings: `url`, under which the keys are, and `ttl`, for how many seconds a value is
// fresh (60 unless set).
package export_cachecluster_plugin_getter

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	config "items/bindings/cachecluster_plugin_config"
	plugin "items/bindings/cachecluster_plugin_types"
	wit "items/bindings/wit/types"
	"items/origin"
)

const (
	defaultTTL  = "60"
	notFoundTTL = 10 * time.Second
)

type result = wit.Result[plugin.Outcome, plugin.Error]

// Get answers for a key: it is the function that the node calls.
func Get(key string, ctx *plugin.Context) result {
	// The context is only lent.
	defer ctx.Drop()

	// Servers take dots for an order to leave the folder, encoded or not.
	if key == "" || key == "." || key == ".." {
		return failed(plugin.MakeErrorInvalidKey("the key can be no segment of a path"))
	}
	ttl, ok := seconds(config.Get("ttl").SomeOr(defaultTTL))
	if !ok {
		return internal("the setting `ttl` is not a whole number")
	}
	target, err := locate(config.Get("url").SomeOr(""), key)
	if err != nil {
		return internal(fmt.Sprintf("the setting `url`: %v", err))
	}

	validator := ctx.Validator()
	// A tenth is kept, so that the answer is out before the node gives up.
	response, err := origin.Get(target, validator, ctx.Remaining()/10*9)
	switch {
	case errors.Is(err, origin.ErrTimedOut):
		return failed(plugin.MakeErrorTimedOut())
	case errors.Is(err, origin.ErrDenied):
		return failed(plugin.MakeErrorDenied(err.Error()))
	case err != nil:
		return unavailable(err.Error(), wit.None[string]())
	}
	return answer(response, validator.IsSome(), ttl)
}

// answer is what the origin's response says about the key.
func answer(response *origin.Response, conditional bool, ttl time.Duration) result {
	said := fmt.Sprintf("the origin answered %d", response.Status)
	switch status := response.Status; {
	case status == 200:
		return succeeded(plugin.MakeOutcomeFound(plugin.Entry{
			Value:       response.Body,
			Freshness:   fresh(ttl),
			Validator:   response.Header("etag"),
			ContentType: response.Header("content-type"),
		}))
	case status == 304 && conditional:
		return succeeded(plugin.MakeOutcomeNotModified(fresh(ttl)))
	case status == 404 || status == 410:
		return succeeded(plugin.MakeOutcomeNotFound(fresh(notFoundTTL)))
	case status == 401 || status == 403:
		return failed(plugin.MakeErrorDenied(said))
	case status == 429 || status >= 500:
		return unavailable(said, response.Header("retry-after"))
	default:
		return internal(said)
	}
}

// locate is the URL of a key, which is one segment of the path.
func locate(base, key string) (*url.URL, error) {
	if base == "" {
		return nil, errors.New("it is missing")
	}
	// The two differ in nothing but the space.
	segment := strings.ReplaceAll(url.QueryEscape(key), "+", "%20")
	return url.Parse(base + "/" + segment)
}

// seconds reads a number of seconds.
func seconds(text string) (time.Duration, bool) {
	n, err := strconv.ParseUint(text, 10, 31)
	return time.Duration(n) * time.Second, err == nil
}

func fresh(ttl time.Duration) plugin.Freshness {
	return plugin.Freshness{Ttl: wit.Some(uint64(ttl)), Stale: wit.None[uint64]()}
}

func succeeded(outcome plugin.Outcome) result {
	return wit.Ok[plugin.Outcome, plugin.Error](outcome)
}

func failed(err plugin.Error) result {
	return wit.Err[plugin.Outcome](err)
}

func internal(message string) result {
	return failed(plugin.MakeErrorInternal(message))
}

func unavailable(message string, retryAfter wit.Option[string]) result {
	wait := wit.None[uint64]()
	if pause, ok := seconds(retryAfter.SomeOr("")); ok {
		wait = wit.Some(uint64(pause))
	}
	return failed(plugin.MakeErrorUnavailable(plugin.Unavailable{Message: message, RetryAfter: wait}))
}
