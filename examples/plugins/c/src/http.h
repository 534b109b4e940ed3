// A GET over wasi:http.

#ifndef HTTP_H
#define HTTP_H

#include <stddef.h>
#include <stdint.h>

enum http_result {
  HTTP_OK,
  // The time was over before the whole answer was there.
  HTTP_TIMED_OUT,
  // The node does not let the plugin reach the origin.
  HTTP_DENIED,
  // The origin cannot be reached, or hung up.
  HTTP_UNREACHABLE,
  // The URL is none.
  HTTP_BAD_URL,
};

// Headers are NULL when the answer has none of that name.
struct http_response {
  uint16_t status;
  char *content_type;
  char *etag;
  char *retry_after;
  uint8_t *body;
  size_t body_len;
};

// Gets `url`, if it does not match `if_none_match` (which may be NULL), within
// `nanoseconds`. Only after HTTP_OK is there a response, which is the caller's to free.
enum http_result http_get(const char *url, const char *if_none_match, uint64_t nanoseconds,
                          struct http_response *response);

void http_response_free(struct http_response *response);

#endif
