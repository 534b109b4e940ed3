// From the Go package of wit-bindgen 0.60.0, under Apache-2.0 WITH LLVM-exception.

package wit_types

type Unit struct{}
