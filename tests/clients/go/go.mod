module headwater/client

go 1.19
