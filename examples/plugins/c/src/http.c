#include "http.h"

#include <stdlib.h>
#include <string.h>

#include "getter.h"

static const uint64_t READ_MAX = 64 * 1024;

static enum http_result result_of(const wasi_http_types_error_code_t *code) {
  switch (code->tag) {
  case WASI_HTTP_TYPES_ERROR_CODE_DNS_TIMEOUT:
  case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_TIMEOUT:
  case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_READ_TIMEOUT:
  case WASI_HTTP_TYPES_ERROR_CODE_HTTP_RESPONSE_TIMEOUT:
    return HTTP_TIMED_OUT;
  case WASI_HTTP_TYPES_ERROR_CODE_HTTP_REQUEST_DENIED:
  case WASI_HTTP_TYPES_ERROR_CODE_DESTINATION_IP_PROHIBITED:
    return HTTP_DENIED;
  default:
    return HTTP_UNREACHABLE;
  }
}

// Writes scheme, authority and path of `url` into `request`.
static bool set_url(wasi_http_types_borrow_outgoing_request_t request, const char *url) {
  wasi_http_types_scheme_t scheme;
  if (strncmp(url, "http://", 7) == 0) {
    scheme.tag = WASI_HTTP_TYPES_SCHEME_HTTP;
    url += 7;
  } else if (strncmp(url, "https://", 8) == 0) {
    scheme.tag = WASI_HTTP_TYPES_SCHEME_HTTPS;
    url += 8;
  } else {
    return false;
  }
  size_t length = strcspn(url, "/");
  getter_string_t authority = {(uint8_t *)url, length};
  getter_string_t path = {(uint8_t *)url + length, strlen(url + length)};
  return wasi_http_types_method_outgoing_request_set_scheme(request, &scheme) &&
         wasi_http_types_method_outgoing_request_set_authority(request, &authority) &&
         wasi_http_types_method_outgoing_request_set_path_with_query(request, &path);
}

// The node watches these, so that a silent origin cannot hold the plugin up: the first
// byte has to come within the sum of the first two.
static wasi_http_types_own_request_options_t timeouts(uint64_t nanoseconds) {
  uint64_t connect = nanoseconds / 4, first_byte = nanoseconds - connect;
  wasi_http_types_own_request_options_t options = wasi_http_types_constructor_request_options();
  wasi_http_types_borrow_request_options_t borrow = wasi_http_types_borrow_request_options(options);
  wasi_http_types_method_request_options_set_connect_timeout(borrow, &connect);
  wasi_http_types_method_request_options_set_first_byte_timeout(borrow, &first_byte);
  wasi_http_types_method_request_options_set_between_bytes_timeout(borrow, &first_byte);
  return options;
}

// Sends the request and waits for the head of its answer.
static enum http_result send(const char *url, const char *if_none_match, uint64_t nanoseconds,
                             wasi_http_types_own_incoming_response_t *response) {
  wasi_http_types_own_fields_t headers = wasi_http_types_constructor_fields();
  if (if_none_match != NULL) {
    getter_string_t name;
    getter_string_set(&name, "if-none-match");
    wasi_http_types_field_value_t value = {(uint8_t *)if_none_match, strlen(if_none_match)};
    wasi_http_types_header_error_t error;
    wasi_http_types_method_fields_append(wasi_http_types_borrow_fields(headers), &name, &value,
                                         &error);
  }
  wasi_http_types_own_outgoing_request_t request =
      wasi_http_types_constructor_outgoing_request(headers);
  if (!set_url(wasi_http_types_borrow_outgoing_request(request), url)) {
    wasi_http_types_outgoing_request_drop_own(request);
    return HTTP_BAD_URL;
  }

  wasi_http_types_own_request_options_t options = timeouts(nanoseconds);
  wasi_http_types_own_future_incoming_response_t future;
  wasi_http_types_error_code_t code;
  if (!wasi_http_outgoing_handler_handle(request, &options, &future, &code)) {
    enum http_result result = result_of(&code);
    wasi_http_types_error_code_free(&code);
    return result;
  }
  wasi_http_types_borrow_future_incoming_response_t pending =
      wasi_http_types_borrow_future_incoming_response(future);
  wasi_io_poll_own_pollable_t answered =
      wasi_http_types_method_future_incoming_response_subscribe(pending);
  wasi_io_poll_method_pollable_block(wasi_io_poll_borrow_pollable(answered));
  wasi_io_poll_pollable_drop_own(answered);

  // The outer result only says that this is the first time it is asked for.
  wasi_http_types_result_result_own_incoming_response_error_code_void_t got;
  enum http_result result = HTTP_UNREACHABLE;
  if (wasi_http_types_method_future_incoming_response_get(pending, &got) && !got.is_err) {
    if (got.val.ok.is_err) {
      result = result_of(&got.val.ok.val.err);
      wasi_http_types_error_code_free(&got.val.ok.val.err);
    } else {
      result = HTTP_OK;
      *response = got.val.ok.val.ok;
    }
  }
  wasi_http_types_future_incoming_response_drop_own(future);
  return result;
}

// The first header of that name, as a string to be freed; NULL if there is none or it is
// empty.
static char *header(wasi_http_types_borrow_fields_t headers, const char *name) {
  getter_string_t field;
  getter_string_set(&field, name);
  wasi_http_types_list_field_value_t values;
  wasi_http_types_method_fields_get(headers, &field, &values);
  char *text = NULL;
  if (values.len > 0 && values.ptr[0].len > 0) {
    text = strndup((char *)values.ptr[0].ptr, values.ptr[0].len);
  }
  wasi_http_types_list_field_value_free(&values);
  return text;
}

// Why a read failed; the stream's error is used up.
static enum http_result read_failed(wasi_io_streams_stream_error_t *error) {
  if (error->tag == WASI_IO_STREAMS_STREAM_ERROR_CLOSED) {
    return HTTP_OK;
  }
  enum http_result result = HTTP_UNREACHABLE;
  wasi_http_types_error_code_t code;
  if (wasi_http_types_http_error_code(
          wasi_io_error_borrow_error(error->val.last_operation_failed), &code)) {
    result = result_of(&code);
    wasi_http_types_error_code_free(&code);
  }
  wasi_io_streams_stream_error_free(error);
  return result;
}

static enum http_result read_body(wasi_io_streams_borrow_input_stream_t stream,
                                  struct http_response *response) {
  size_t capacity = 0;
  for (;;) {
    getter_list_u8_t part;
    wasi_io_streams_stream_error_t error;
    if (!wasi_io_streams_method_input_stream_blocking_read(stream, READ_MAX, &part, &error)) {
      return read_failed(&error);
    }
    size_t length = response->body_len + part.len;
    if (length > capacity) {
      capacity = length < 2 * capacity ? 2 * capacity : length;
      response->body = realloc(response->body, capacity);
      if (response->body == NULL) {
        abort();
      }
    }
    if (part.len > 0) {
      memcpy(response->body + response->body_len, part.ptr, part.len);
    }
    response->body_len = length;
    getter_list_u8_free(&part);
  }
}

enum http_result http_get(const char *url, const char *if_none_match, uint64_t nanoseconds,
                          struct http_response *response) {
  memset(response, 0, sizeof *response);
  wasi_http_types_own_incoming_response_t answer;
  enum http_result result = send(url, if_none_match, nanoseconds, &answer);
  if (result != HTTP_OK) {
    return result;
  }
  wasi_http_types_borrow_incoming_response_t borrow =
      wasi_http_types_borrow_incoming_response(answer);
  response->status = wasi_http_types_method_incoming_response_status(borrow);

  wasi_http_types_own_fields_t headers = wasi_http_types_method_incoming_response_headers(borrow);
  wasi_http_types_borrow_fields_t fields = wasi_http_types_borrow_fields(headers);
  response->content_type = header(fields, "content-type");
  response->etag = header(fields, "etag");
  response->retry_after = header(fields, "retry-after");
  wasi_http_types_fields_drop_own(headers);

  // A stream goes before its body, and a body before its response.
  wasi_http_types_own_incoming_body_t body;
  wasi_http_types_own_input_stream_t stream;
  if (wasi_http_types_method_incoming_response_consume(borrow, &body)) {
    if (wasi_http_types_method_incoming_body_stream(wasi_http_types_borrow_incoming_body(body),
                                                    &stream)) {
      result = read_body(wasi_io_streams_borrow_input_stream(stream), response);
      wasi_io_streams_input_stream_drop_own(stream);
    }
    wasi_http_types_incoming_body_drop_own(body);
  }
  wasi_http_types_incoming_response_drop_own(answer);
  if (result != HTTP_OK) {
    http_response_free(response);
  }
  return result;
}

void http_response_free(struct http_response *response) {
  free(response->content_type);
  free(response->etag);
  free(response->retry_after);
  free(response->body);
  memset(response, 0, sizeof *response);
}
