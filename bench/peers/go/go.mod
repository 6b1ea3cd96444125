module headwater/peer

go 1.19
