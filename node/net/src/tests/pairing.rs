//! Pairing endpoints.

use super::*;

#[tokio::test]
async fn pairing_endpoints_echo() {
    let mut listener = PairListener::open([1; 32], Reach::Loopback).await.unwrap();
    assert!(listener.addresses[0].ends_with("/quic-v1"), "{:?}", listener.addresses);
    for address in listener.addresses.clone() {
        let addresses = [address];
        let dialling = pair_dial([2; 32], listener.id, &addresses, PATIENCE);
        let (dialled, accepted) = tokio::join!(dialling, listener.incoming.recv());
        let (mut near, mut far) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!((near.local, near.remote), (far.remote, far.local));
        assert_eq!(far.local, listener.id);
        near.send(vec![7; 64 << 10]).await.unwrap();
        let frame = far.recv().await.unwrap();
        far.send(frame).await.unwrap();
        assert_eq!(near.recv().await.unwrap(), vec![7; 64 << 10]);
        let too_long = near.send(vec![0; (64 << 10) + 1]).await.unwrap_err();
        assert!(matches!(too_long, PairSendError::TooLong { len: 65_537 }), "{too_long}");
        near.send(b"last".to_vec()).await.unwrap();
        let (last, ()) = tokio::join!(
            async {
                let last = far.recv().await;
                assert_eq!(far.recv().await, None);
                far.finish().await;
                last
            },
            near.finish()
        );
        assert_eq!(last.as_deref(), Some(&b"last"[..]));
    }
}

#[tokio::test]
async fn another_endpoint_at_the_address_is_refused() {
    let mut listener = PairListener::open([1; 32], Reach::Loopback).await.unwrap();
    let other = PairListener::open([3; 32], Reach::Loopback).await.unwrap();
    for address in &listener.addresses {
        let addresses = std::slice::from_ref(address);
        let refused = pair_dial([2; 32], other.id, addresses, PATIENCE).await.unwrap_err();
        assert!(matches!(refused, PairDialError::OtherEndpoint), "{refused}");
    }
    assert!(listener.incoming.try_recv().is_err());
}

#[tokio::test]
async fn the_pairing_endpoint_gives_other_protocols_nothing() {
    let mut listener = PairListener::open([1; 32], Reach::Loopback).await.unwrap();
    let raw = Raw::dial(9, *listener.id.as_bytes(), &listener.addresses[0]).await;
    for protocol in Protocol::SPOKEN {
        assert!(raw.open(&actor::name(protocol)).await.is_err(), "{protocol}");
    }
    assert!(listener.incoming.try_recv().is_err());
    raw.gone().await;
}

#[tokio::test]
async fn a_dropped_pairing_endpoint_is_gone() {
    let listener = PairListener::open([1; 32], Reach::Loopback).await.unwrap();
    let (id, addresses) = (listener.id, listener.addresses.clone());
    let raw = Raw::dial(9, *id.as_bytes(), &addresses[1]).await;
    drop(listener);
    raw.gone().await;
    let refused = pair_dial([2; 32], id, &addresses[1..], PATIENCE).await.unwrap_err();
    assert!(matches!(refused, PairDialError::Unreachable { .. }), "{refused}");
    let nowhere = pair_dial([2; 32], EndpointId::from_bytes([0; 32]), &[], PATIENCE).await;
    assert!(nowhere.is_err());
}
