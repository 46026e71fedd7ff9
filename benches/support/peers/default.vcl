vcl 4.1;

import std;

backend origin {
    .host = "127.0.0.1";
    .port = "@ORIGIN@";
    .max_connections = 2000;
}

sub vcl_recv {
    unset req.http.cookie;
    return (hash);
}

sub vcl_hash {
    hash_data(req.url);
    return (lookup);
}

# Large files to the file, small ones and the hottest large one to memory.
sub vcl_backend_response {
    set beresp.ttl = 1d;
    if (std.integer(beresp.http.content-length, 0) > 1048576 && bereq.url !~ "/large$") {
        set beresp.storage = storage.disk;
    } else {
        set beresp.storage = storage.mem;
    }
}
