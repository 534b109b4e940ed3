//! HTTP as a test sees it.

use super::{Request, Response, Sent, Url, with};
use crate::{Deadline, Error};

pub(crate) fn send(
    request: &Request,
    _url: &Url<'_>,
    _deadline: Deadline,
) -> Result<Response, Error> {
    let sent = Sent { url: request.url().to_owned(), headers: request.headers().to_vec() };
    with(|state| {
        state.sent.push(sent);
        match state.http.get_mut(&Url::canonical(request.url())) {
            Some(answers) if answers.len() > 1 => answers.pop_front(),
            Some(answers) => answers.front().cloned(),
            None => None,
        }
    })
    .unwrap_or_else(|| {
        let url = request.url();
        Err(Error::internal(format!("the test has no answer for {url}: see Host::http")))
    })
}
