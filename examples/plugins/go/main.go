// A getter that fetches values from an HTTP origin.
//
// The node calls Get of the package export_cachecluster_plugin_getter, whose name is that of
// the interface it exports. The folder bindings is written by `cachecluster plugin build`.
package main

import _ "items/bindings/wit_exports"

// Never called: the component is a library.
func main() {}
