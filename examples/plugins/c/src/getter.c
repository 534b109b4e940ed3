// Fetches values from an HTTP origin.
//
// Settings: `url`, under which the keys are, and `ttl`, for how many seconds a value is
// fresh (60 unless set).

#include "getter.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http.h"

typedef cachecluster_plugin_types_outcome_t outcome_t;
typedef cachecluster_plugin_types_error_t error_t;
typedef cachecluster_plugin_types_freshness_t freshness_t;

// The contract counts time in nanoseconds.
static const uint64_t SECOND = 1000000000;
static const uint64_t TTL = 60 * SECOND;
static const uint64_t NOT_FOUND_TTL = 10 * SECOND;

// A text of the contract, whose owner is whoever gets the answer.
static getter_string_t text(const char *format, ...) {
  char buffer[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  getter_string_t result;
  getter_string_dup(&result, buffer);
  return result;
}

static bool internal(error_t *error, getter_string_t message) {
  error->tag = CACHECLUSTER_PLUGIN_TYPES_ERROR_INTERNAL;
  error->val.internal = message;
  return false;
}

static bool denied(error_t *error, getter_string_t message) {
  error->tag = CACHECLUSTER_PLUGIN_TYPES_ERROR_DENIED;
  error->val.denied = message;
  return false;
}

// Reads a number of seconds, as nanoseconds.
static bool seconds(const char *digits, uint64_t *nanoseconds) {
  size_t length = strlen(digits);
  if (length == 0 || length > 9 || strspn(digits, "0123456789") != length) {
    return false;
  }
  *nanoseconds = strtoull(digits, NULL, 10) * SECOND;
  return true;
}

static bool unavailable(error_t *error, getter_string_t message, const char *retry_after) {
  error->tag = CACHECLUSTER_PLUGIN_TYPES_ERROR_UNAVAILABLE;
  error->val.unavailable.message = message;
  cachecluster_plugin_types_option_duration_t *wait = &error->val.unavailable.retry_after;
  wait->is_some = retry_after != NULL && seconds(retry_after, &wait->val);
  return false;
}

// The setting `name`, as a string to be freed, or NULL.
static char *setting(const char *name) {
  getter_string_t key, value;
  getter_string_set(&key, name);
  if (!cachecluster_plugin_config_get(&key, &value)) {
    return NULL;
  }
  char *result = strndup((char *)value.ptr, value.len);
  getter_string_free(&value);
  return result;
}

static bool ttl_setting(uint64_t *ttl, error_t *error) {
  *ttl = TTL;
  char *digits = setting("ttl");
  bool good = digits == NULL || seconds(digits, ttl);
  free(digits);
  return good || internal(error, text("the setting `ttl` is not a whole number"));
}

// The URL of `key`, to be freed, or NULL: the key is one segment of the path.
static char *url_of(const getter_string_t *key, error_t *error) {
  // Servers take dots for an order to leave the folder, encoded or not.
  if (key->len == 0 || (key->len <= 2 && memcmp(key->ptr, "..", key->len) == 0)) {
    error->tag = CACHECLUSTER_PLUGIN_TYPES_ERROR_INVALID_KEY;
    error->val.invalid_key = text("the key can be no segment of a path");
    return NULL;
  }
  char *base = setting("url");
  if (base == NULL || *base == 0) {
    free(base);
    internal(error, text("the setting `url` is missing"));
    return NULL;
  }
  size_t length = strlen(base);
  // Three characters for each byte of the key, a slash and the end.
  char *url = realloc(base, length + 3 * key->len + 2);
  if (url == NULL) {
    abort();
  }
  char *end = url + length;
  *end++ = '/';
  for (size_t i = 0; i < key->len; i++) {
    uint8_t byte = key->ptr[i];
    bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                 (byte >= '0' && byte <= '9') || (byte != 0 && strchr("-._~", byte) != NULL);
    end += sprintf(end, plain ? "%c" : "%%%02X", byte);
  }
  return url;
}

static void fresh_for(freshness_t *freshness, uint64_t ttl) {
  memset(freshness, 0, sizeof *freshness);
  freshness->ttl.is_some = true;
  freshness->ttl.val = ttl;
}

// A header of the answer, which is the entry's from now on.
static void move_text(getter_option_string_t *to, char **from) {
  to->is_some = *from != NULL;
  if (to->is_some) {
    to->val.ptr = (uint8_t *)*from;
    to->val.len = strlen(*from);
  }
  *from = NULL;
}

static void found(outcome_t *outcome, struct http_response *response, uint64_t ttl) {
  memset(outcome, 0, sizeof *outcome);
  outcome->tag = CACHECLUSTER_PLUGIN_TYPES_OUTCOME_FOUND;
  cachecluster_plugin_types_entry_t *entry = &outcome->val.found;
  fresh_for(&entry->freshness, ttl);
  entry->value.ptr = response->body;
  entry->value.len = response->body_len;
  response->body = NULL;
  move_text(&entry->validator, &response->etag);
  move_text(&entry->content_type, &response->content_type);
}

// What the origin's answer says about the key.
static bool outcome_of(struct http_response *response, bool conditional, uint64_t ttl,
                       outcome_t *outcome, error_t *error) {
  unsigned status = response->status;
  switch (status) {
  case 200:
    found(outcome, response, ttl);
    return true;
  case 304:
    if (conditional) {
      outcome->tag = CACHECLUSTER_PLUGIN_TYPES_OUTCOME_NOT_MODIFIED;
      fresh_for(&outcome->val.not_modified, ttl);
      return true;
    }
    break;
  case 404:
  case 410:
    outcome->tag = CACHECLUSTER_PLUGIN_TYPES_OUTCOME_NOT_FOUND;
    fresh_for(&outcome->val.not_found, NOT_FOUND_TTL);
    return true;
  case 401:
  case 403:
    return denied(error, text("the origin answered %u", status));
  }
  if (status == 429 || status >= 500) {
    return unavailable(error, text("the origin answered %u", status), response->retry_after);
  }
  return internal(error, text("the origin answered %u", status));
}

static bool fetch(const char *url, cachecluster_plugin_types_borrow_context_t ctx, uint64_t ttl,
                  outcome_t *outcome, error_t *error) {
  // A tenth is kept, so that the answer is out before the node gives up.
  uint64_t left = cachecluster_plugin_types_method_context_remaining(ctx);
  uint64_t time = left - left / 10;
  char *validator = NULL;
  getter_string_t given;
  if (cachecluster_plugin_types_method_context_validator(ctx, &given)) {
    validator = strndup((char *)given.ptr, given.len);
    getter_string_free(&given);
  }

  struct http_response response;
  bool done = false;
  switch (http_get(url, validator, time, &response)) {
  case HTTP_OK:
    done = outcome_of(&response, validator != NULL, ttl, outcome, error);
    http_response_free(&response);
    break;
  case HTTP_TIMED_OUT:
    error->tag = CACHECLUSTER_PLUGIN_TYPES_ERROR_TIMED_OUT;
    break;
  case HTTP_DENIED:
    denied(error, text("the plugin may not reach the origin: see its `network`"));
    break;
  case HTTP_UNREACHABLE:
    unavailable(error, text("the origin cannot be reached"), NULL);
    break;
  case HTTP_BAD_URL:
    internal(error, text("the setting `url` is no URL"));
    break;
  }
  free(validator);
  return done;
}

// The export: true with an outcome, or false with an error.
bool exports_cachecluster_plugin_getter_get(getter_string_t *key,
                                            cachecluster_plugin_types_borrow_context_t ctx,
                                            outcome_t *outcome, error_t *error) {
  uint64_t ttl;
  bool done = false;
  if (ttl_setting(&ttl, error)) {
    char *url = url_of(key, error);
    done = url != NULL && fetch(url, ctx, ttl, outcome, error);
    free(url);
  }
  getter_string_free(key);
  return done;
}
